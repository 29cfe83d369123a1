"""Epochs of secure sums: who is in one, when a round is void, and what a restart does to them."""

from typing import Any

import numpy as np
import pytest
from coordinator_runs import COLLECTING, FINISHED, WAITING
from runs import ROUND, SESSION_TIMEOUT, CoordinatorDriver, join
from secure_world import World

from cospan.core.secure_sums.membership import Member, Membership
from cospan.server.machine import events
from cospan.server.machine.secure_sums.epochs import offer_of
from cospan.wire import messages as m
from cospan.wire.errors import InvalidMessageError, SessionUnknownError, TooManyAgentsError

KEYS = {name: bytes([number]) * 32 for number, name in enumerate("abcdefgh", 1)}
SECURE: dict[str, Any] = {"agents": 3, "rounds": 9, "secure_sums": True, "min_cohort": 3}


def fleet(*hosted: tuple[str, ...], **changes: Any) -> World:
    """Processes that have formed two sums."""
    world = World(*(hosted or (("a",), ("b",), ("c",), ("d", "e"))), **changes)
    world.heal()
    return world


def learnt(world: World, *places: int) -> None:
    """These processes send what they owe to the open round."""
    for place in places:
        process = world.processes[place]
        while process.inbox:
            process.receive()
        process.learn()
        while process.outbox:
            process.send()


def test_members_are_told_once_and_then_sum() -> None:
    world = fleet()
    told = sum(isinstance(message, m.SumMembers) for process in world.processes for message in process.inbox)
    epoch = world.run.state.open_round.epoch
    assert epoch is not None
    assert told == 0
    assert epoch.untold == frozenset()
    assert [each.agent_ids for each in sorted(epoch.membership.members, key=lambda each: each.agent_ids)] == [
        ("a",),
        ("b",),
        ("c",),
        ("d", "e"),
    ]
    assert world.voids == 0
    world.heal()
    assert world.run.state.open_round.epoch is epoch, "it costs nothing while the members stay the same"


def test_a_round_that_loses_a_member_before_its_vector_is_void() -> None:
    world = fleet()
    number, basis = world.run.state.round, world.run.state.basis
    learnt(world, 0, 1)
    world.kill(2)
    for process in world.processes:
        process.connect()
    learnt(world, 2)  # it was started again, and joins
    (stored,) = [each for each in world.unstored if isinstance(each, events.StoreRound)]
    assert (stored.record.closed_round, dict(stored.record.contributors)) == (number, {})
    assert stored.record.weight == 0.0
    world.store()
    assert (world.run.state.round, world.voids) == (number + 1, 1)
    np.testing.assert_array_equal(world.run.state.basis, basis)
    assert world.run.state.history.rounds_counted["a"] == number
    world.heal()
    assert world.voids == 1


def test_a_round_keeps_the_vector_of_a_member_that_departs_after_it() -> None:
    world = fleet()
    learnt(world, 0)
    token = world.processes[0].token
    assert token is not None
    world.step(events.LeaveArrived(token, "enough"))
    sums = world.sums
    learnt(world, 1, 2, 3)
    world.compute()
    assert (world.sums, world.voids) == (sums + 1, 0)


def test_a_process_that_joins_takes_part_from_the_next_round_on() -> None:
    world = fleet()
    number = world.run.state.round
    world.processes.append(world.started(("f",)))
    learnt(world, 0)
    world.processes[4].connect()
    learnt(world, 4)
    assert world.processes[4].state.is_open is False
    assert world.run.state.open_round.awaited.isdisjoint({"f"})
    learnt(world, 1, 2, 3)
    world.compute()
    world.store()
    assert (world.run.state.round, world.voids) == (number + 1, 0)
    assert world.run.state.open_round.awaited == set("abcdef")
    world.heal()
    assert world.voids == 0


def test_the_same_processes_make_the_same_epoch_after_a_restart() -> None:
    world = fleet()
    learnt(world, 0, 1)
    before, masked, epoch = world.run.state.round, dict(world.masked), world.run.state.open_round.epoch
    world.restart()
    world.heal()
    assert world.voids == 0
    assert epoch is not None
    assert {epoch_id for (_, number), (epoch_id, _) in world.masked.items() if number >= before} == {epoch.id}
    assert masked.items() <= world.masked.items()


def test_who_has_sent_declines_the_round_in_another_epoch() -> None:
    world = fleet()
    learnt(world, 0, 1)
    number = world.run.state.round
    world.kill(3)
    world.restart()
    for process in world.processes:
        process.connect()
        learnt(world, world.processes.index(process))
    learnt(world, 0)
    assert world.run.state.open_round.void_cause.startswith("a member has sent a vector for this round before")
    world.store()
    assert world.run.state.round == number + 1
    world.heal()
    assert (world.sums, world.voids) == (4, 1)


def test_a_round_is_void_when_its_sum_is_none() -> None:
    world = fleet()
    learnt(world, 0, 1, 2, 3)
    assert world.closing is not None
    state = world.run.state
    void = events.BasisComputed(state.round, _stays(world), void_cause="the masks do not cancel")
    world.step(void)
    world.store()
    assert (world.run.state.round, world.voids) == (state.round + 1, 1)
    assert world.run.state.history.rounds_counted["a"] == state.round


def _stays(world: World) -> Any:
    from cospan.core.aggregation.basis_update import BasisMove

    return BasisMove(world.run.state.basis, world.run.state.basis)


def test_below_the_smallest_cohort_no_round_is_open() -> None:
    world = fleet(("a",), ("b",), ("c",))
    number = world.run.state.round
    world.processes[0].lose_stream()
    for _ in range(3):  # the others are heard, and it is dropped
        world.run.now += SESSION_TIMEOUT / 2.0
        for process in world.processes[1:]:
            assert process.token is not None
            world.step(events.HeartbeatArrived(process.token))
        world.step(events.Tick())
    world.store()
    assert (world.run.state.phase, world.run.state.round) == (WAITING, number + 1)
    assert any(isinstance(each, events.Note) and each.kind == "cohort-small" for each in world.run.commands)
    world.heal()
    assert (world.run.state.phase, world.voids) == (COLLECTING, 1)


def test_a_run_ends_that_waits_too_long_for_its_cohort() -> None:
    world = fleet(("a",), ("b",), ("c",))
    for process in world.processes:
        assert process.token is not None
        world.step(events.LeaveArrived(process.token, "enough", returning=True))
        world.store()
    assert world.run.state.phase is WAITING
    world.run.wait(ROUND)
    assert (world.run.state.phase, world.run.state.finish_cause) == (FINISHED, m.FinishCause.NO_AGENTS)


# Joining ----------------------------------------------------------------------------------------------------------


def member(*agents: str, key: bytes | None = None) -> Member:
    return Member(KEYS[agents[0]] if key is None else key, agents)


def test_a_join_offers_a_key_for_all_its_agents() -> None:
    offer = offer_of(join("a", "b", sum_members=(Member(KEYS["a"], ()),)))
    assert offer.members == (Member(KEYS["a"], ("a", "b")),)
    relayed = (member("a"), member("b", "c"))
    assert offer_of(join("a", "b", "c", sum_members=relayed)).members == relayed


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ((), "is empty, and this run has secure sums"),
        ((member("a"),), "every agent of join.agent_ids once"),
        ((member("a"), member("a", key=KEYS["b"]), member("b")), "every agent of join.agent_ids once"),
        ((member("a", "b"), Member(KEYS["c"], ())), "every agent of join.agent_ids once"),
        ((member("a"), member("b", key=KEYS["a"])), "one key twice"),
    ],
)
def test_what_a_join_may_not_offer(members: tuple[Member, ...], problem: str) -> None:
    run = CoordinatorDriver(**SECURE)
    run.refuse(run.joining("a", "b", sum_members=members), InvalidMessageError, problem)


def test_a_key_is_of_one_session() -> None:
    run = CoordinatorDriver(**SECURE)
    run.join("a", sum_members=(member("a"),))
    copied = (member("b", key=KEYS["a"]),)
    run.refuse(run.joining("b", sum_members=copied), InvalidMessageError, "a key of another session")


def test_another_key_is_another_session() -> None:
    run = CoordinatorDriver(**SECURE)
    first = run.join("a", sum_members=(member("a"),))
    again = run.resuming(first, sum_members=(member("a", key=KEYS["b"]),))
    run.refuse(again, SessionUnknownError, "another key")
    assert run.join("a", sum_members=(member("a", key=KEYS["b"]),)) != first
    assert run.state.members.keys == {KEYS["b"]: "token-3"}


def test_a_sum_has_room_for_so_many_agents() -> None:
    run = CoordinatorDriver(**SECURE)
    run.join(*(f"a{number}" for number in range(60)), sum_members=(Member(KEYS["a"], ()),))
    more = run.joining(*(f"b{number}" for number in range(5)), sum_members=(Member(KEYS["b"], ()),))
    run.refuse(more, TooManyAgentsError, "room for 64 agents")


# Vectors ----------------------------------------------------------------------------------------------------------


def sums() -> tuple[CoordinatorDriver, list[str]]:
    run = CoordinatorDriver(**SECURE)
    return run, [run.join(name, sum_members=(member(name),)) for name in "abc"]


def vector(run: CoordinatorDriver, number: int = 0, *, epoch_id: bytes | None = None) -> m.GradientUpload:
    epoch = run.state.open_round.epoch
    assert epoch is not None
    words = np.zeros(9, dtype=np.uint64)
    return m.GradientUpload(number, m.MaskedVector(words, epoch.id if epoch_id is None else epoch_id, 1.0))


def test_a_vector_of_another_epoch_does_not_count() -> None:
    run, (a, b, _) = sums()
    run.step(events.GradientArrived(a, vector(run, epoch_id=bytes(32))))
    assert run.receipt().disposition is m.Disposition.LATE
    run.step(events.GradientArrived(a, vector(run)))
    assert run.state.open_round.counted == {"a"}
    run.step(events.GradientArrived(a, vector(run)))
    assert run.receipt().disposition is m.Disposition.DUPLICATE
    with pytest.raises(ValueError, match="cannot be counted in a batch"):
        run.step(events.GradientsArrived({b: vector(run, epoch_id=bytes(32))}))
    run.step(events.GradientsArrived({b: vector(run)}))
    assert run.state.open_round.counted == {"a", "b"}


def test_a_vector_is_of_a_whole_process() -> None:
    run = CoordinatorDriver(**SECURE | {"agents": 4})
    tokens = [run.join(*each, sum_members=(member(*each),)) for each in (("a", "b"), ("c",), ("d",))]
    upload = m.GradientUpload(0, vector(run).contribution, ("a",))
    run.refuse(events.GradientArrived(tokens[0], upload), InvalidMessageError, "must be all agents of the process")


def test_a_vector_of_another_epoch_over_the_agents_of_that_epoch_is_late() -> None:
    """As a relay sends it again that an agent has joined, to a coordinator that has opened the round once more."""
    run = CoordinatorDriver(**SECURE | {"agents": 4})
    tokens = [run.join(*each, sum_members=(member(*each),)) for each in (("a", "b"), ("c",), ("d",))]
    run.step(
        events.GradientArrived(tokens[0], m.GradientUpload(0, vector(run, epoch_id=bytes(32)).contribution, ("a",)))
    )
    assert run.receipt().disposition is m.Disposition.LATE
    assert run.state.open_round.awaited == set("abcd")


def test_a_round_is_declined_by_who_is_awaited() -> None:
    run, (a, b, _) = sums()
    run.step(events.GradientArrived(a, vector(run)))
    run.step(events.DeclineArrived(a, 0))  # it has counted
    run.step(events.DeclineArrived(b, 1))  # not open
    assert not run.state.open_round.void_cause
    assert run.step(events.DeclineArrived(b, 0)) == ["StoreRound", "round-void"]
    assert run.step(events.DeclineArrived(b, 0)) == []  # it closes


def test_the_id_of_an_epoch_is_that_of_its_members() -> None:
    run, _ = sums()
    epoch = run.state.open_round.epoch
    assert epoch is not None
    assert epoch.id == Membership.of("run-1", [member(name) for name in "cab"]).epoch_id
    update = next(each for each in run.sent() if isinstance(each, m.BasisUpdate))
    assert update.epoch_id == epoch.id


STAGES = ("opened", "received", "learnt", "sent", "one sent", "computed", "stored")


@pytest.mark.parametrize("stage", STAGES)
def test_the_run_continues_when_two_of_twelve_die_at_a_stage_of_a_round(stage: str) -> None:
    world = fleet(*((f"a{number:02}",) for number in range(12)))
    dying = world.processes[3], world.processes[8]
    others = [place for place in range(12) if world.processes[place] not in dying]
    if stage in ("computed", "stored"):
        learnt(world, *range(12))
        if stage == "stored":
            world.compute()
    else:
        learnt(world, *others[:5])
        for process in dying[: 1 if stage == "one sent" else 2]:
            while process.inbox and stage != "opened":
                process.receive()
            if stage in ("learnt", "sent", "one sent"):
                process.learn()
            while process.outbox and stage in ("sent", "one sent"):
                process.send()
    for place in (3, 8):
        world.kill(place)
    world.heal()
    assert world.voids <= 1, "they are started again, and cost a round at most"
    assert world.run.state.members.present.names == {f"a{number:02}" for number in range(12)}
