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
from simulator.plan import SITUATIONS, Fault, Kind, Plan, Settings, plan_of, source_of
from simulator.shrink import pasteable_test, shrink
from simulator.world import World, play

from cospan.client.session.machine import reconnecting, rounds
from cospan.client.session.machine.events import TransmitMasked
from cospan.client.session.machine.state import KeptGradient, Outcome, SessionState
from cospan.client.session.masking import Masking
from cospan.core.run_fields import Participation
from cospan.core.specification import RunSpecification
from cospan.relay import machine as relay_machine
from cospan.server.machine import closing
from cospan.wire.messages import GradientUpload


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
        settings = Settings(processes=(2, 2, 2), relayed=1)
        if kind is Kind.STORE_COPIED:  # what other runs lose with a store is not followed
            settings = Settings(processes=(2, 2, 2), min_cohort=3)
        elif "secure" in SITUATIONS.get(kind, "") and kind is not Kind.AGENT_GROWS:
            settings = Settings(processes=(2, 2, 2), min_cohort=3, relayed=1)
        result = play(Plan(1, settings, faults))
        assert (result.violation, result.injected[kind] > 0) == ("", True), kind


def test_some_seeds_have_secure_sums_of_which_some_are_void() -> None:
    plans = [plan for plan in map(plan_of, range(40)) if plan.settings.min_cohort]
    assert 5 <= len(plans) <= 20
    assert all(plan.settings.participation is Participation.ALL for plan in plans)
    assert any(plan.settings.relayed for plan in plans)
    sums = voids = 0
    for result in map(play, plans):  # `test_seed` and tests/behaviour play all of them
        sums, voids = sums + result.sums, voids + result.voids
        if sums > voids > 0:
            return
    raise AssertionError(f"{sums} sums and {voids} void rounds")


def test_without_faults_no_secure_sum_is_void() -> None:
    world = World(Plan(1, Settings(min_cohort=3, rounds=15)))
    world.play()
    book = world.witness.secure_sums
    assert (book.sums, book.voids) == (len(world.disk.store.rounds), 0)
    assert all(set(record.contributors) == world.all_agents for record in world.disk.store.rounds)


def test_secure_sums_give_the_bits_of_plain_ones() -> None:
    plain, secure = World(Plan(1, Settings(rounds=15))), World(Plan(1, Settings(min_cohort=3, rounds=15)))
    plain.play()
    secure.play()
    pairs = list(zip(plain.disk.store.rounds, secure.disk.store.rounds, strict=False))
    assert len(pairs) >= 3
    for one, other in pairs:
        assert one.move.basis.tobytes() == other.move.basis.tobytes()


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


def _masks_two_vectors(patch: pytest.MonkeyPatch) -> None:
    """All that prevents it is taken away: in the session's machine, in the masking, and in the key pair."""
    turn, masked = rounds.masked_turn, Masking.masked

    def turn_again(state: SessionState, kept: KeptGradient | None, now: float) -> Outcome | None:
        other = kept is not None and kept.epoch_id not in (b"", state.epoch_id)
        fresh = dataclasses.replace(kept, epoch_id=b"") if kept is not None and other else kept
        kept_now = tuple(fresh if each is kept and fresh is not None else each for each in state.kept)
        return turn(dataclasses.replace(state, masked_until=0, kept=kept_now), fresh, now)

    def masked_again(self: Masking, command: TransmitMasked, spec: RunSpecification) -> GradientUpload:
        self._sent.clear()
        self._key.newest = None
        return masked(self, command, spec)

    patch.setattr(rounds, "masked_turn", turn_again)
    patch.setattr(SessionState, "check", lambda self: None)
    patch.setattr(Masking, "masked", masked_again)


def _adds_without_a_member(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(closing, "_void_cause", lambda current: "")


def _moves_in_a_void_round(patch: pytest.MonkeyPatch) -> None:
    move = closing.BasisMove
    patch.setattr(closing, "BasisMove", lambda basis, after, *rest, **more: move(basis, -after, *rest, **more))


@pytest.mark.parametrize(
    ("planted", "violation", "first"),
    [
        (_too_many_heartbeats, "a heartbeat comes before its time", 0),
        (_never_gives_up, "a process waits for longer than it may", 0),
        (_keeps_one_gradient, "a process keeps what it may be asked for again", 2),
        (_gathers_no_agents, "a relay joins before others had time to come", 2),
        (_masks_two_vectors, "masks two vectors", 60),
        (
            _adds_without_a_member,
            "fewer than the smallest cohort|not over all members|stays open that can have no|waits for no agent",
            3,
        ),
        (_moves_in_a_void_round, "a void round changes the basis", 3),
        (_never_durable, "durable", 0),
        (_messages_overtake, "no progress", 0),
        (_another_basis, "not that of its contributors", 0),
        (
            _runs_ahead_with_others,
            "runs ahead of the disk|stored before they are announced|further ahead|in-flight",
            0,
        ),
    ],
)
def test_what_is_planted_is_found(
    planted: Callable[[pytest.MonkeyPatch], None], violation: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played from a seed shortly before the one that finds it: without the fault those find nothing."""
    planted(monkeypatch)
    found = next(result.violation for seed in range(first, 120) if (result := play(plan_of(seed))).violation)
    assert any(part in found for part in violation.split("|")), found


def test_a_failing_plan_is_reduced_to_the_faults_that_matter() -> None:
    plan = plan_of(7)
    cut, kill = Fault(1.0, Kind.CUT, 1, 0.5), Fault(2.0, Kind.COORDINATOR_KILL, 1, 0.5)
    plan = dataclasses.replace(plan, faults=(*plan.faults[:9], cut, *plan.faults[9:], kill))
    smallest = shrink(plan, lambda candidate: {cut, kill} <= set(candidate.faults))
    assert smallest.faults == (cut, kill)


def test_a_failing_plan_with_secure_sums_keeps_its_cohort(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of fewer processes than its smallest cohort is no run, and would fail for another reason."""
    _moves_in_a_void_round(monkeypatch)
    settings = Settings(processes=(1, 1, 1, 1, 1), min_cohort=5, rounds=15)
    kill = Fault(2.0, Kind.AGENT_REPLACED, 1, 0.0)
    smallest = shrink(Plan(1, settings, (Fault(1.0, Kind.CUT, 1, 0.5), kill)))
    assert (smallest.settings.processes, smallest.settings.min_cohort, smallest.faults) == ((1, 1, 1), 3, (kill,))
    assert "a void round changes the basis" in play(smallest).violation


@pytest.mark.parametrize("seed", [1, 11])
def test_a_plan_can_be_pasted(seed: int) -> None:
    """Also one with secure sums."""
    plan = plan_of(seed)
    assert bool(plan.settings.min_cohort) == (seed == 11)
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


def test_the_book_of_a_new_run_is_empty() -> None:
    """A lost store is another run: what was promised of the first one does not bind it."""
    plan = Plan(1, Settings(), (Fault(5.0, Kind.STORE_LOST, 0, 0.0),))
    world = World(plan)
    world.play()
    assert isinstance(world.witness, witness.Witness)
    assert world.disk.store.run_id != "run of 0"
