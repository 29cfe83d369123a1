"""Plans that have failed once: each is a seed, reduced to the faults that matter (docs/simulator.md)."""

from simulator.plan import Fault, Kind, Plan, Settings
from simulator.world import play

from cospan.core.run_fields import Participation


def test_a_quorum_that_a_departure_makes_has_a_deadline() -> None:
    """The round waited for its timeout."""
    plan = Plan(
        79,
        Settings(
            processes=(3, 2, 3, 1, 3, 1),
            participation=Participation.QUORUM,
            quorum=0.7,
            deadline_seconds=0.2,
            inflight_rounds=4,
            compute_seconds=0.05,
            network_seconds=0.1,
            disk_seconds=0.001,
        ),
        (Fault(6.94, Kind.AGENT_REPLACED, 88, 0.496),),
    )
    assert play(plan).violation == ""


def test_a_relay_with_a_new_agent_does_not_keep_a_replay_open() -> None:
    """After a restart its sum was late in every replay, and each replay ended with the relay's time-out."""
    plan = Plan(
        295,
        Settings(
            processes=(1, 1, 1, 1),
            relayed=5,
            rounds=15,
            inflight_rounds=1,
            learn_seconds=1.0,
            network_seconds=0.1,
            disk_seconds=0.001,
        ),
        (
            Fault(1.956, Kind.AGENT_STALL, 45, 0.59),
            Fault(6.159, Kind.AGENT_STALL, 88, 0.239),
            Fault(10.772, Kind.COORDINATOR_DRAIN, 58, 0.088),
        ),
    )
    assert play(plan).violation == ""


def test_a_relay_without_agents_follows_a_coordinator_that_went_back() -> None:
    """Its agents had counted in more rounds than there were."""
    plan = Plan(
        313,
        Settings(processes=(1, 1, 1, 1), relayed=2, rounds=15, network_seconds=0.001, disk_seconds=0.5),
        (
            Fault(2.565, Kind.AGENT_STALL, 99, 0.676),
            Fault(3.679, Kind.COORDINATOR_DRAIN, 2, 0.589),
            Fault(9.907, Kind.RELAY_STALL, 55, 0.413),
            Fault(14.028, Kind.PARTITION, 61, 0.844),
            Fault(17.669, Kind.STORE_LOST, 21, 0.313),
            Fault(19.954, Kind.DELAY, 93, 0.492),
        ),
    )
    assert play(plan).violation == ""


def test_agents_follow_an_older_copy_of_the_store_with_the_same_incarnation() -> None:
    """A coordinator had been started again between the copy and its return: "is its state damaged?"."""
    plan = Plan(
        197,
        Settings(
            processes=(3, 3, 3),
            min_cohort=3,
            inflight_rounds=4,
            learn_seconds=0.1,
            network_seconds=0.001,
            disk_seconds=0.5,
        ),
        (
            Fault(2.79, Kind.STORE_COPIED, 44, 0.904),
            Fault(3.699, Kind.STORE_COPIED, 58, 0.08),
            Fault(17.878, Kind.DELAY, 31, 0.388),
        ),
    )
    assert play(plan).violation == ""


def test_an_agent_with_a_smaller_key_joins_a_relay_in_an_open_round() -> None:
    """The relay took the epoch of that round for one without it, and ended."""
    plan = Plan(
        162,
        Settings(
            processes=(1, 1, 3, 1),
            min_cohort=3,
            relayed=3,
            inflight_rounds=1,
            learn_seconds=0.1,
            network_seconds=0.1,
            disk_seconds=0.001,
        ),
        (
            Fault(4.373, Kind.COORDINATOR_POWER, 94, 0.998),
            Fault(6.346, Kind.AGENT_KILL, 29, 0.565),
            Fault(9.59, Kind.COORDINATOR_POWER, 86, 0.901),
            Fault(9.987, Kind.LIE, 42, 0.322),
            Fault(10.666, Kind.PARTITION, 13, 0.427),
            Fault(15.534, Kind.COORDINATOR_STALL, 49, 0.827),
            Fault(17.064, Kind.AGENT_MOVED, 65, 0.155),
        ),
    )
    assert play(plan).violation == ""


def test_a_member_that_has_sent_comes_back_to_its_relay_with_other_agents() -> None:
    """The relay took the agents of its vector for those that it had joined with."""
    plan = Plan(
        596,
        Settings(
            processes=(3, 1, 3, 3, 1, 2),
            min_cohort=3,
            relayed=6,
            rounds=15,
            inflight_rounds=64,
            gathers=False,
            learn_seconds=0.1,
            disk_seconds=0.05,
        ),
        (
            Fault(1.543, Kind.AGENT_HANGS, 25, 0.424),
            Fault(3.896, Kind.AGENT_MOVED, 56, 0.498),
            Fault(7.504, Kind.DISK_FULL, 48, 0.858),
            Fault(7.739, Kind.AGENT_MOVED, 65, 0.823),
        ),
    )
    assert play(plan).violation == ""


def test_agents_that_join_a_relay_one_after_another_void_no_round() -> None:
    """The second one did: the relay's session was awaited with the agents of the first, and not found."""
    plan = Plan(
        819,
        Settings(min_cohort=2, relayed=3, inflight_rounds=4, gathers=False, learn_seconds=0.1, disk_seconds=0.05),
        (Fault(14.887, Kind.REPLAY_LOST, 99, 0.133), Fault(19.03, Kind.AGENT_ADDED, 49, 0.414)),
    )
    assert play(plan).violation == ""


def test_a_cohort_that_is_too_small_after_a_jump_of_the_clock() -> None:
    """Its sessions have the shorter limit of silence from then on, and the next tick drops them."""
    plan = Plan(
        700104,
        Settings(
            processes=(3, 3, 2), min_cohort=3, rounds=15, gathers=False, network_seconds=0.001, disk_seconds=0.001
        ),
        (
            Fault(0.543, Kind.HALF_OPEN, 96, 0.96),
            Fault(0.849, Kind.COORDINATOR_CLOCK, 90, 0.648),
            Fault(0.867, Kind.DISK_FULL, 34, 0.319),
            Fault(2.074, Kind.COORDINATOR_CLOCK, 4, 0.256),
            Fault(3.482, Kind.COORDINATOR_CLOCK, 17, 0.852),
        ),
    )
    assert play(plan).violation == ""


def test_agents_behind_a_relay_follow_an_older_copy_of_the_store() -> None:
    """Their streams stayed open, so no welcome said that the coordinator was another: "is its state damaged?"."""
    plan = Plan(
        1008373,
        Settings(
            processes=(1, 2, 2, 1, 2, 1),
            min_cohort=6,
            relayed=3,
            compute_seconds=0.05,
            learn_seconds=0.1,
            network_seconds=0.001,
            disk_seconds=0.001,
        ),
        (
            Fault(13.354, Kind.STORE_COPIED, 73, 0.682),
            Fault(15.875, Kind.STORE_COPIED, 67, 0.732),
            Fault(16.449, Kind.BLACK_HOLE, 38, 0.081),
            Fault(19.93, Kind.AGENT_ADDED, 16, 0.318),
        ),
    )
    assert play(plan).violation == ""


def test_agents_behind_a_relay_hear_of_a_copy_with_a_lower_incarnation() -> None:
    """Answers of the relay did not count for them any more, and they gave up."""
    plan = Plan(
        1005020,
        Settings(
            processes=(2, 3, 1, 2, 1, 2, 2, 3, 2, 1, 2, 1),
            min_cohort=3,
            relayed=3,
            gathers=False,
            compute_seconds=0.05,
            disk_seconds=0.05,
        ),
        (
            Fault(1.361, Kind.COORDINATOR_POWER, 3, 0.048),
            Fault(4.162, Kind.COORDINATOR_POWER, 64, 0.99),
            Fault(6.145, Kind.PARTITION, 5, 0.966),
            Fault(6.168, Kind.COORDINATOR_KILL, 49, 0.214),
            Fault(7.545, Kind.AGENT_ADDED, 77, 0.804),
            Fault(7.837, Kind.PARTITION, 67, 0.541),
            Fault(14.347, Kind.AGENT_KILL, 72, 0.999),
            Fault(14.765, Kind.STORE_COPIED, 37, 0.994),
            Fault(16.906, Kind.COORDINATOR_POWER, 28, 0.483),
            Fault(18.08, Kind.AGENT_REPLACED, 67, 0.455),
            Fault(19.092, Kind.AGENT_REPLACED, 63, 0.23),
            Fault(19.122, Kind.STORE_COPIED, 57, 0.103),
            Fault(19.966, Kind.COORDINATOR_KILL, 13, 0.053),
        ),
    )
    assert play(plan).violation == ""


def test_a_run_that_waits_for_its_fleet_has_all_agents_of_a_relay() -> None:
    """The relay had its first sum on the way, and waited for the next round with two agents that came since.

    They gave up, and the relay refused their next processes: it had not heard that the first ones were gone.
    """
    plan = Plan(
        1007857,
        Settings(
            processes=(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),
            relayed=12,
            inflight_rounds=1,
            learn_seconds=1.0,
            network_seconds=0.1,
            disk_seconds=0.05,
        ),
        (
            Fault(2.683, Kind.RELAY_STALL, 6, 0.287),
            Fault(2.735, Kind.LIE, 40, 0.057),
            Fault(2.769, Kind.ALL_HANG, 0, 0.276),
            Fault(2.902, Kind.BLACK_HOLE, 61, 0.528),
            Fault(3.103, Kind.REPLAY_LOST, 12, 0.225),
            Fault(3.397, Kind.JOIN_LOST, 63, 0.875),
            Fault(3.471, Kind.BLACK_HOLE, 38, 0.996),
            Fault(4.91, Kind.COORDINATOR_POWER, 78, 0.925),
            Fault(5.032, Kind.AGENT_ADDED, 71, 0.835),
            Fault(5.451, Kind.OVERTAKE, 44, 0.571),
        ),
    )
    assert play(plan).violation == ""


# What was the simulator's own ----------------------------------------------------------------------------------


def test_a_process_that_stands_still_is_a_fault_that_lasts() -> None:
    """It was asked to leave meanwhile, and did so when only connections were to be lost any more."""
    plan = Plan(
        1003031,
        Settings(
            participation=Participation.QUORUM,
            quorum=0.5,
            deadline_seconds=0.2,
            max_staleness=1,
            inflight_rounds=4,
            gathers=False,
            compute_seconds=0.05,
            learn_seconds=1.0,
            network_seconds=0.001,
            disk_seconds=0.001,
        ),
        (Fault(18.139, Kind.AGENT_STALL, 23, 0.426), Fault(18.503, Kind.AGENT_LEAVE, 47, 0.653)),
    )
    assert play(plan).violation == ""


def test_a_process_is_killed_once() -> None:
    """The coordinator's kill reset a connection, which killed its agent; killed again, it had two successors."""
    plan = Plan(
        1001323,
        Settings(
            processes=(2, 2, 1, 2, 1, 3, 2, 1, 3, 1, 2, 3),
            min_cohort=3,
            gathers=False,
            compute_seconds=0.05,
            network_seconds=0.001,
            disk_seconds=0.5,
        ),
        (
            Fault(4.65, Kind.AGENT_MOVED, 73, 0.294),
            Fault(6.246, Kind.AGENT_MOVED, 27, 0.014),
            Fault(12.141, Kind.COORDINATOR_DRAIN, 9, 0.353),
            Fault(12.277, Kind.AGENT_KILL, 79, 0.214),
            Fault(12.373, Kind.AGENT_KILL, 78, 0.599),
            Fault(13.594, Kind.AGENT_ADDED, 11, 0.149),
            Fault(13.596, Kind.AGENT_MOVED, 65, 0.25),
        ),
    )
    assert play(plan).violation == ""


def test_a_session_that_ended_after_its_vector_has_no_successor_left() -> None:
    """The duty took it for displaced by the join of another, which then took the place of none."""
    plan = Plan(
        2000980,
        Settings(
            processes=(1, 1, 1, 1, 1, 1),
            min_cohort=3,
            relayed=2,
            inflight_rounds=1,
            learn_seconds=1.0,
            network_seconds=0.001,
            disk_seconds=0.5,
        ),
        (
            Fault(0.177, Kind.JOIN_LOST, 55, 0.297),
            Fault(1.157, Kind.JOIN_LOST, 59, 0.43),
            Fault(1.78, Kind.JOIN_LOST, 70, 0.438),
            Fault(2.607, Kind.RELAY_KILL, 36, 0.185),
            Fault(3.809, Kind.RELAY_KILL, 46, 0.788),
            Fault(4.06, Kind.JOIN_LOST, 70, 0.607),
            Fault(4.184, Kind.JOIN_LOST, 61, 0.825),
            Fault(10.288, Kind.JOIN_LOST, 21, 0.095),
            Fault(10.318, Kind.JOIN_LOST, 65, 0.677),
        ),
    )
    assert play(plan).violation == ""


def test_a_round_that_a_replay_has_announced_is_announced_again_without_it() -> None:
    """The witness took it for the first time that it runs ahead of the disk, with contributors that are gone."""
    plan = Plan(
        2004590,
        Settings(
            processes=(2, 2, 2, 1, 3, 3),
            relayed=6,
            inflight_rounds=64,
            learn_seconds=0.1,
            network_seconds=0.001,
            disk_seconds=0.5,
        ),
        (
            Fault(3.583, Kind.REPLAY_LOST, 6, 0.561),
            Fault(3.756, Kind.COORDINATOR_POWER, 34, 0.655),
            Fault(4.34, Kind.COORDINATOR_KILL, 87, 0.675),
            Fault(5.876, Kind.COORDINATOR_KILL, 8, 0.172),
            Fault(6.599, Kind.COORDINATOR_DRAIN, 76, 0.27),
            Fault(6.778, Kind.DISK_SLOW, 10, 0.234),
            Fault(16.705, Kind.AGENT_ADDED, 34, 0.814),
        ),
    )
    assert play(plan).violation == ""


def test_a_replay_continues_without_an_agent_that_departs_after_it_has_counted() -> None:
    """It may still come back to the next round; the duty wanted it to be awaited there at once."""
    plan = Plan(
        2007386,
        Settings(processes=(2, 3, 1, 2, 3, 3, 1, 3, 3, 3, 1, 3), relayed=2, disk_seconds=0.5),
        (
            Fault(3.15, Kind.AGENT_ADDED, 85, 0.672),
            Fault(7.04, Kind.AGENT_ADDED, 20, 0.627),
            Fault(7.611, Kind.AGENT_SLOW, 23, 0.333),
            Fault(8.29, Kind.COORDINATOR_KILL, 16, 0.088),
            Fault(9.443, Kind.AGENT_KILL, 81, 0.254),
            Fault(9.78, Kind.RELAY_CUT, 11, 0.299),
            Fault(13.519, Kind.ALL_HANG, 21, 0.804),
            Fault(14.604, Kind.AGENT_REPLACED, 45, 0.079),
            Fault(19.722, Kind.REPEAT, 94, 0.479),
        ),
    )
    assert play(plan).violation == ""


def test_a_round_whose_members_cannot_repeat_it_may_come_to_another_basis() -> None:
    """An agent had joined the process of one while the coordinator was down, so the round opened with all."""
    plan = Plan(
        20023095,
        Settings(processes=(1, 1, 2, 2), min_cohort=3, relayed=4, disk_seconds=0.5),
        (
            Fault(4.713, Kind.AGENT_LEAVE, 70, 0.626),
            Fault(4.729, Kind.HALF_OPEN, 14, 0.44),
            Fault(4.827, Kind.RELAY_KILL, 66, 0.13),
            Fault(4.904, Kind.AGENT_MOVED, 23, 0.969),
            Fault(5.347, Kind.AGENT_LEAVE, 75, 0.897),
            Fault(5.362, Kind.AGENT_MOVED, 85, 0.818),
        ),
    )
    assert play(plan).violation == ""


def test_a_write_that_began_on_a_slow_disk_ends_with_the_faults() -> None:
    """Its rounds were on the disk, and for 25 s more the coordinator was not told."""
    plan = Plan(
        30000691,
        Settings(inflight_rounds=64, disk_seconds=0.5),
        (Fault(5.664, Kind.DISK_SLOW, 2, 0.986), Fault(7.131, Kind.PARTITION, 32, 0.746)),
    )
    assert play(plan).violation == ""


def test_a_relay_sends_no_sum_of_a_lost_run_again() -> None:
    """A new run began without the store of the one before, and came to the same rounds."""
    plan = Plan(
        40051859,
        Settings(processes=(3, 1, 2), relayed=3, rounds=15, gathers=False, disk_seconds=0.05),
        (
            Fault(1.375, Kind.RELAY_REPEATS, 4, 0.936),
            Fault(1.479, Kind.RELAY_REPEATS, 97, 0.372),
            Fault(1.943, Kind.RELAY_REPEATS, 62, 0.387),
            Fault(3.791, Kind.STORE_LOST, 64, 0.763),
            Fault(16.902, Kind.REPLAY_LOST, 37, 0.137),
        ),
    )
    assert play(plan).violation == ""
