"""The whole system in one process, under faults that follow from a seed (docs/simulator.md)."""

import dataclasses
from collections.abc import Callable

import pytest
from simulator import toy, witness
from simulator.mutants.__main__ import mutated, source_path
from simulator.mutants.catalogue import MUTANTS
from simulator.parties.disk import SimulatedDisk
from simulator.parties.network import Network
from simulator.plan import Fault, Kind, Plan, Settings, plan_of, source_of
from simulator.shrink import pasteable_test, shrink
from simulator.world import World, play

from cospan.server.machine import closing


@pytest.mark.parametrize("seed", range(20))
def test_seed(seed: int) -> None:
    """With all shapes checked; tests/behaviour/test_simulated_seeds.py plays more seeds, without."""
    assert play(plan_of(seed)).violation == ""


def test_a_plan_always_gives_the_same_run() -> None:
    for seed in (3, 42):
        one, two = World(plan_of(seed)), World(plan_of(seed))
        one.play()
        two.play()
        assert one.timeline.events == two.timeline.events
        assert [record.move.basis.tobytes() for record in one.disk.store.rounds] == [
            record.move.basis.tobytes() for record in two.disk.store.rounds
        ]


def test_every_kind_of_fault_is_injected() -> None:
    for kind in Kind:
        faults = tuple(Fault(float(second), kind, second, 0.5) for second in range(2, 12))
        result = play(Plan(1, Settings(), faults))
        assert (result.violation, result.injected[kind] > 0) == ("", True), kind


def test_without_faults_all_rounds_are_those_of_all_agents() -> None:
    world = World(Plan(1, Settings(rounds=15)))
    world.play()
    assert world.disk.store.rounds
    assert all(set(record.contributors) == world.all_agents for record in world.disk.store.rounds)


def _never_durable(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimulatedDisk, "commit", lambda self, operations: None)


def _messages_overtake(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Network, "delay", lambda self: 40.0)


def _another_basis(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(toy, "next_basis", lambda basis, total: basis + 1.0)
    patch.setattr(toy, "model", lambda bases, number, contributors: bases[number])


def _runs_ahead_with_others(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(closing, "_may_announce_early", lambda state: True)


@pytest.mark.parametrize(
    ("planted", "violation"),
    [
        (_never_durable, "durable"),
        (_messages_overtake, "no progress"),
        (_another_basis, "not that of its contributors"),
        (
            _runs_ahead_with_others,
            "runs ahead of the disk|stored before they are announced|further ahead|in-flight",
        ),
    ],
)
def test_what_is_planted_is_found(
    planted: Callable[[pytest.MonkeyPatch], None], violation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch)
    found = next(result.violation for seed in range(30) if (result := play(plan_of(seed))).violation)
    assert any(part in found for part in violation.split("|")), found


def test_a_failing_plan_is_reduced_to_the_faults_that_matter() -> None:
    plan = plan_of(7)
    cut, kill = Fault(1.0, Kind.CUT, 1, 0.5), Fault(2.0, Kind.COORDINATOR_KILL, 1, 0.5)
    plan = dataclasses.replace(plan, faults=(*plan.faults[:9], cut, *plan.faults[9:], kill))
    smallest = shrink(plan, lambda candidate: {cut, kill} <= set(candidate.faults))
    assert smallest.faults == (cut, kill)


def test_a_plan_can_be_pasted() -> None:
    plan = plan_of(11)
    namespace = {"Plan": Plan, "Settings": Settings, "Fault": Fault, "Kind": Kind}
    from cospan.core.run_fields import Participation

    assert eval(source_of(plan), namespace | {"Participation": Participation}) == plan
    assert compile(pasteable_test(plan, play(plan)), "a test", "exec")


def test_every_mutant_suits_the_code() -> None:
    """One that does not has to be rewritten, or the share that is found says less than it seems to."""
    for mutant in MUTANTS:
        source = mutated(source_path(mutant).read_text(encoding="utf-8"), mutant)
        compile(source, mutant.module, "exec")
    assert len({(mutant.module, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


def test_the_book_of_a_new_run_is_empty() -> None:
    """A lost store is another run: what was promised of the first one does not bind it."""
    plan = Plan(1, Settings(), (Fault(5.0, Kind.STORE_LOST, 0, 0.0),))
    world = World(plan)
    world.play()
    assert isinstance(world.witness, witness.Witness)
    assert world.disk.store.run_id != "run of 0"
