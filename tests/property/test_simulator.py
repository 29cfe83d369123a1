"""The whole system in one process, under faults that follow from a seed (docs/simulator.md)."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from simulator import toy, witness
from simulator.mutants import reach
from simulator.mutants.catalogue import MUTANTS
from simulator.mutants.generated import places
from simulator.mutants.reach import watched
from simulator.parties import session_process
from simulator.parties.disk import SimulatedDisk
from simulator.parties.network import Network
from simulator.plan import Fault, Kind, Plan, Settings, plan_of, source_of
from simulator.shrink import pasteable_test, shrink
from simulator.world import World, play

from cospan.client.session.machine import reconnecting, rounds
from cospan.core.run_fields import Participation
from cospan.relay import machine as relay_machine
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
        faults = tuple(Fault(float(second), kind, second, 0.5) for second in range(2, 8))
        result = play(Plan(1, Settings(processes=(2, 2, 2), relayed=1), faults))
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


def _too_many_heartbeats(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconnecting, "_HEARTBEATS_PER_TIMEOUT", 16.0)


def _never_gives_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconnecting, "_is_exhausted", lambda state, now: False)
    patch.setattr(session_process, "PROGRESS_SECONDS", 3.0)


def _keeps_one_gradient(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rounds, "most_kept", lambda state: 1)


def _gathers_no_agents(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(relay_machine, "_FIRST_GATHER_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("planted", "violation"),
    [
        (_too_many_heartbeats, "a heartbeat comes before its time"),
        (_never_gives_up, "a process waits for longer than it may"),
        (_keeps_one_gradient, "a process keeps what it may be asked for again"),
        (_gathers_no_agents, "a relay joins before others had time to come"),
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
    assert eval(source_of(plan), namespace | {"Participation": Participation}) == plan
    assert compile(pasteable_test(plan, play(plan)), "a test", "exec")


def test_every_mutant_suits_the_code() -> None:
    """One that does not has to be rewritten, or the share that is found says less than it seems to."""
    for mutant in (*(each for each in MUTANTS if not each.key), MUTANTS[-1]):
        compile(mutant.applied(mutant.path.read_text(encoding="utf-8")), mutant.module, "exec")
    generated = {mutant.module: mutant.path for mutant in MUTANTS if mutant.key}
    for module, path in generated.items():  # at once: every guard stands beside what replaces it
        compile(watched(path.read_text(encoding="utf-8"), module), module, "exec")
    assert len({(mutant.module, mutant.old, mutant.new, mutant.key) for mutant in MUTANTS}) == len(MUTANTS)


def test_guards_are_dropped_and_bounds_are_moved() -> None:
    source = (
        "def f(state, n):\n"
        "    if n is None:\n"
        "        return []\n"
        "    if state.a and n < state.b:\n"
        "        n = 0\n"
        "    return [each for each in state.c if each] or n\n"
    )
    changes = {place.key: source[: place.begin] + place.new + source[place.end :] for place in places(source)}
    assert list(changes) == [
        "f: never n is None",
        "f: without state.a",
        "f: without n < state.b",
        "f: without [each for each in state.c if each]",
        "f: without n",
        "f: bound n < state.b",
        "f: no filter each",
    ]
    assert "if False:" in changes["f: never n is None"]
    assert "if True and n < state.b:" in changes["f: without state.a"]
    assert "state.a and (n <= state.b):" in changes["f: bound n < state.b"]
    assert "if True] or n" in changes["f: no filter each"]
    assert changes["f: without n"].endswith("or False\n")


def test_a_seed_reaches_a_mutant_where_its_guard_decides_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_reached", defaultdict(list))
    source = "def f(a, b):\n    if a < b:\n        return 1\n    return 2\n"
    namespace: dict[str, Any] = {}
    exec(compile(watched(source, "m"), "m", "exec"), namespace)
    for seed, (a, b) in enumerate([(1, 0), (0, 1), (1, 1), (0, 1)]):
        monkeypatch.setattr(reach, "_seed", seed)
        assert namespace["f"](a, b) == (1 if a < b else 2)
    assert reach._reached == {("m", "f: never a < b"): [1, 3], ("m", "f: bound a < b"): [2]}


def test_a_seed_reaches_an_operand_where_no_other_one_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_reached", defaultdict(list))
    source = "def f(a, b):\n    return a is not None and a < b\n"
    namespace: dict[str, Any] = {}
    exec(compile(watched(source, "m"), "m", "exec"), namespace)
    for seed, (a, b) in enumerate([(0, 1), (1, 0), (None, 1), (1, 1)]):
        monkeypatch.setattr(reach, "_seed", seed)
        assert namespace["f"](a, b) == (a is not None and a < b)
    reached = {key: seeds for (_, key), seeds in reach._reached.items() if seeds}
    assert reached == {"f: without a is not None": [2], "f: without a < b": [1, 3], "f: bound a < b": [3]}


def test_a_mutant_of_another_text_is_refused() -> None:
    with pytest.raises(ValueError, match="has 0 times 'no such text', and not once"):
        dataclasses.replace(MUTANTS[0], old="no such text").applied("pass")
    generated = next(mutant for mutant in MUTANTS if mutant.key)
    with pytest.raises(KeyError):
        generated.applied("pass")


# What has failed once ------------------------------------------------------------------------------------------


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


def test_the_book_of_a_new_run_is_empty() -> None:
    """A lost store is another run: what was promised of the first one does not bind it."""
    plan = Plan(1, Settings(), (Fault(5.0, Kind.STORE_LOST, 0, 0.0),))
    world = World(plan)
    world.play()
    assert isinstance(world.witness, witness.Witness)
    assert world.disk.store.run_id != "run of 0"
