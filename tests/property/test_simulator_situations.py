"""More plans that have failed once (docs/simulator.md), of runs with up to 80 faults or with situations."""

from simulator.plan import Fault, Kind, Plan, Settings
from simulator.world import play

from cospan.core.run_fields import Participation


def test_a_relay_that_an_agent_has_joined_may_send_a_sum_of_an_earlier_epoch_again() -> None:
    """The coordinator had opened the round once more, and ended it for a sum over a part of the process."""
    plan = Plan(
        379,
        Settings(
            processes=(2, 3, 3, 3, 1, 3, 3, 2, 3, 3, 1, 3),
            min_cohort=12,
            relayed=12,
            inflight_rounds=64,
            learn_seconds=0.1,
            network_seconds=0.001,
            disk_seconds=0.5,
        ),
        (
            Fault(1.47, Kind.AGENT_ADDED, 84, 0.149),
            Fault(2.475, Kind.RELAY_REPEATS, 2, 0.956),
            Fault(7.567, Kind.COORDINATOR_DRAIN, 81, 0.191),
            Fault(20.0, Kind.REPEAT, 0, 0.0),
        ),
    )
    assert play(plan).violation == ""


def test_a_tick_at_a_deadline_finds_it_due() -> None:
    """Less the time of the last message, now was shorter than the time-out by a rounding."""
    plan = Plan(
        6000411,
        Settings(
            processes=(3, 3, 1, 2, 3, 1, 3, 2, 1, 2, 3, 1),
            participation=Participation.QUORUM,
            quorum=0.5,
            deadline_seconds=1.0,
            max_staleness=2,
            inflight_rounds=64,
            gathers=False,
            learn_seconds=0.1,
            network_seconds=0.1,
            disk_seconds=0.5,
        ),
        (
            Fault(0.402, Kind.REPLAY_LOST, 26, 0.613),
            Fault(2.225, Kind.DISK_SLOW, 11, 0.985),
            Fault(2.393, Kind.PART, 92, 0.658),
            Fault(3.079, Kind.AGENT_STALL, 49, 0.879),
            Fault(14.504, Kind.AGENT_STALL, 58, 0.675),
        ),
    )
    assert play(plan).violation == ""


def test_a_replay_of_too_few_members_is_followed_by_a_round_of_all() -> None:
    """An agent had joined the relay of the others, so it had no sum over them alone; the run waited for more."""
    plan = Plan(
        7002908,
        Settings(
            processes=(1, 1, 1, 1),
            min_cohort=3,
            relayed=4,
            inflight_rounds=4,
            gathers=False,
            learn_seconds=1.0,
            disk_seconds=0.5,
        ),
        (Fault(5.649, Kind.REPLAY_LOST, 47, 0.785), Fault(5.843, Kind.AGENT_REPLACED, 41, 0.327)),
    )
    assert play(plan).violation == ""


def test_a_process_that_is_lost_after_a_part_of_its_sum_may_change_what_was_announced() -> None:
    plan = Plan(
        8002842,
        Settings(processes=(3, 1, 1), rounds=15, network_seconds=0.1, disk_seconds=0.001),
        (
            Fault(3.47, Kind.AGENT_KILL, 56, 0.161),
            Fault(5.624, Kind.COORDINATOR_KILL, 90, 0.56),
            Fault(5.702, Kind.PART, 66, 0.974),
            Fault(6.096, Kind.AGENT_KILL, 73, 0.962),
            Fault(6.577, Kind.OVERTAKE, 85, 0.374),
            Fault(14.489, Kind.OVERTAKE, 15, 0.041),
            Fault(16.455, Kind.PART, 99, 0.837),
        ),
    )
    assert play(plan).violation == ""


def test_a_relay_that_joins_a_replay_again_with_other_agents_may_change_what_was_announced() -> None:
    plan = Plan(
        11001572,
        Settings(
            processes=(2, 2, 2, 3, 3, 1, 2, 2, 1, 1, 1, 1),
            relayed=3,
            inflight_rounds=1,
            learn_seconds=0.1,
            disk_seconds=0.5,
        ),
        (Fault(0.463, Kind.TAKEN_BACK, 14, 0.167), Fault(20.0, Kind.REPEAT, 0, 0.0)),
    )
    assert play(plan).violation == ""


def test_a_join_that_voids_its_round_keeps_no_member_that_has_departed() -> None:
    """It stayed for a sum on its way, in which another member came back with other agents: there was none then."""
    plan = Plan(
        11001587,
        Settings(
            processes=(2, 2, 2, 1, 2, 3),
            min_cohort=5,
            relayed=3,
            rounds=15,
            inflight_rounds=4,
            learn_seconds=0.1,
            network_seconds=0.1,
            disk_seconds=0.001,
        ),
        (
            Fault(4.965, Kind.COORDINATOR_CLOCK, 88, 0.485),
            Fault(5.079, Kind.AGENT_LEAVE, 90, 0.766),
            Fault(5.191, Kind.AGENT_MOVED, 81, 0.317),
            Fault(5.781, Kind.COORDINATOR_POWER, 57, 0.666),
            Fault(5.928, Kind.AGENT_REPLACED, 8, 0.903),
            Fault(15.488, Kind.AGENT_LEAVE, 25, 0.953),
            Fault(15.771, Kind.AGENT_MOVED, 10, 0.658),
        ),
    )
    assert play(plan).violation == ""


def test_a_run_whose_fleet_has_joined_begins_though_a_stream_is_broken_when_its_time_is_over() -> None:
    """The duty wanted all to be connected; the run would have ended, and its agents had come."""
    plan = Plan(
        20002739,
        Settings(compute_seconds=0.05, disk_seconds=0.5, late_seconds=59.531),
        (
            Fault(0.224, Kind.COORDINATOR_CLOCK, 88, 0.715),
            Fault(0.392, Kind.COORDINATOR_CLOCK, 95, 0.464),
            Fault(2.234, Kind.COORDINATOR_CLOCK, 93, 0.778),
            Fault(6.006, Kind.COORDINATOR_CLOCK, 73, 0.676),
            Fault(8.356, Kind.COORDINATOR_CLOCK, 90, 0.789),
            Fault(10.688, Kind.COORDINATOR_CLOCK, 41, 0.295),
            Fault(11.509, Kind.AGENT_REPLACED, 34, 0.32),
        ),
    )
    assert play(plan).violation == ""


def test_a_relay_that_left_after_a_sum_of_some_agents_and_returns_with_all_waits_for_the_next_round() -> None:
    """Its leave was lost, and its join was taken for a second one: it was awaited, and its sum was refused."""
    plan = Plan(
        20003106,
        Settings(relayed=2, network_seconds=0.1, disk_seconds=0.05),
        (Fault(1.808, Kind.RELAY_REPEATS, 36, 0.909), Fault(1.816, Kind.RELAY_REPEATS, 42, 0.374)),
    )
    assert play(plan).violation == ""


def test_a_gradient_that_comes_late_is_kept_until_its_round_is_durable() -> None:
    """The coordinator was lost before, opened the round again, and the agent learnt it a second time."""
    plan = Plan(
        20016123,
        Settings(processes=(1, 1, 2, 1, 3), relayed=5, inflight_rounds=4, compute_seconds=0.05, disk_seconds=0.05),
        (
            Fault(5.708, Kind.AGENT_ADDED, 15, 0.667),
            Fault(5.968, Kind.ALL_HANG, 78, 0.329),
            Fault(10.753, Kind.REPLAY_LOST, 53, 0.529),
            Fault(10.896, Kind.DISK_SLOW, 82, 0.098),
            Fault(19.649, Kind.COORDINATOR_POWER, 45, 0.113),
        ),
    )
    assert play(plan).violation == ""


def test_a_process_that_joined_afresh_and_finds_an_older_join_gone_tries_again() -> None:
    """The duty wanted it to end its round first, as one that was given up does."""
    plan = Plan(
        20020152,
        Settings(relayed=2, inflight_rounds=1, compute_seconds=0.05, disk_seconds=0.05),
        (
            Fault(17.552, Kind.COORDINATOR_CLOCK, 49, 0.88),
            Fault(17.586, Kind.AGENT_REPLACED, 42, 0.347),
            Fault(17.697, Kind.DISK_SLOW, 83, 0.638),
            Fault(18.145, Kind.RELAY_STALL, 63, 0.977),
        ),
    )
    assert play(plan).violation == ""


def test_a_lie_that_comes_out_late_ends_its_process() -> None:
    """A gradient that it had held back came when only connections were to be lost, after a sum over a part."""
    plan = Plan(
        40000836,
        Settings(
            processes=(2, 1, 1),
            inflight_rounds=4,
            gathers=False,
            learn_seconds=0.1,
            network_seconds=0.001,
            disk_seconds=0.5,
        ),
        (Fault(12.143, Kind.OVERTAKE, 21, 0.556), Fault(12.383, Kind.PART, 21, 0.389)),
    )
    assert play(plan).violation == ""
