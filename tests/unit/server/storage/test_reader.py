"""Past rounds that are read for agents' files: which bases are needed, and which are recalled."""

from pathlib import Path

from runs import CoordinatorDriver, join, run, specification, until, upload
from stored import NAME, RUN_ID, basis_after, round_of, served, stored_run
from values import same

from cospan.server.machine import events, restored_state
from cospan.server.machine.membership import needed_from
from cospan.server.machine.state import CoordinatorConfig
from cospan.server.runtime.engine import Engine
from cospan.server.storage.reader import read_past, read_saved
from cospan.server.storage.writer import create_store
from cospan.wire.messages import RecalledRounds

AGENTS = ("a", "b")


# Which bases are kept ---------------------------------------------------------------------------------------


def test_the_oldest_file_of_the_fleet_decides_which_bases_are_needed() -> None:
    fleet = CoordinatorDriver()
    assert needed_from(fleet.state) is None
    fleet.join("a")
    assert needed_from(fleet.state) is None, "a process without a file needs none"
    b = fleet.join("b", keeps_state=True)
    assert needed_from(fleet.state) == 0, "how far its file has come is not known yet"
    fleet.step(events.HeartbeatArrived(b, 7))
    assert needed_from(fleet.state) == 7
    fleet.step(events.HeartbeatArrived(b))
    fleet.step(events.HeartbeatArrived(b, 5))
    assert needed_from(fleet.state) == 7, "a file never has less than before"
    fleet.step(events.LeaveArrived(b, "done"))
    assert needed_from(fleet.state) is None


def test_after_a_restart_everything_is_kept_until_the_agents_are_back(tmp_path: Path) -> None:
    with served(tmp_path / NAME) as made:
        driver = CoordinatorDriver()
        driver.join("a", keeps_state=True)
        made.write([command for command in driver.commands if isinstance(command, events.StoreMember)])
        made.write([round_of(0)])
    state = restored_state(read_saved(tmp_path / NAME), CoordinatorConfig("run-1", 2, 1.0, 1.0), 0.0)
    assert needed_from(state) == 0


# What is recalled ---------------------------------------------------------------------------------------------


def kept_run(folder: Path, rounds: int = 12) -> Path:
    """One whose bases are all kept; b is not in rounds 4 to 6, and its gradient of 8 counted in 9."""
    with served(folder / NAME, checkpoint_interval=1) as made:
        for number in range(rounds):
            named = {"a": number} if 4 <= number <= 6 or number == 8 else {"a": number, "b": number}
            made.write([round_of(number, {"a": 9, "b": 8} if number == 9 else named)])
    return folder / NAME


def test_the_rounds_that_an_agent_took_part_in_are_recalled(tmp_path: Path) -> None:
    path = kept_run(tmp_path)
    found = read_past(path, ["a"], 3, 12, most=100)
    assert [number for number, *_ in found.bases] == list(range(3, 12))
    assert all(same(basis, basis_after(number)) for number, basis, _ in found.bases)
    assert (found.next_round, found.lost) == (12, 0)
    assert [number for number, *_ in read_past(path, ["b"], 3, 12, most=100).bases] == [3, 7, 8, 10, 11]
    page = read_past(path, ["b"], 3, 12, most=2)
    assert ([number for number, *_ in page.bases], page.next_round) == ([3, 7], 8)
    assert read_past(path, ["c"], 0, 12, most=100).bases == ()


def test_the_first_basis_of_a_run_is_not_stored_and_recalled_all_the_same(tmp_path: Path) -> None:
    ((number, basis, _), *_) = read_past(kept_run(tmp_path), ["a"], 0, 2, most=1).bases
    assert number == 0
    assert same(basis, specification(rounds=0).initial_basis())


def test_rounds_of_a_group_that_was_not_whole_are_lost(tmp_path: Path) -> None:
    found = read_past(kept_run(tmp_path), AGENTS, 3, 8, most=100)
    assert (found.bases, found.lost) == ((), 3)


def test_bases_that_are_not_kept_are_counted(tmp_path: Path) -> None:
    found = read_past(stored_run(tmp_path, 12), ["a"], 3, 12, most=100)
    assert (found.bases, found.lost, found.next_round) == ((), 7, 12)


def test_a_coordinator_waits_for_the_disk_and_answers_newcomers_at_once(tmp_path: Path) -> None:
    async def recalled() -> tuple[RecalledRounds, RecalledRounds, RecalledRounds]:
        spec = specification(agents=1, rounds=9)
        engine = Engine(spec, store=create_store(tmp_path / NAME, spec, run_id=RUN_ID))
        stream = engine.streams.open()
        engine.handle(events.JoinRequested(join("a", keeps_state=True), stream.number, "token"))
        for number in range(4):
            engine.handle(events.GradientArrived("token", upload(number)))
            if number == 0:  # that is told when it is on the disk
                await until(engine, lambda: engine.state.round == 1)
        assert engine.state.durability.durable_round < engine.state.round, "the others run ahead of it"
        answers = [await engine.recall(names, 1, 99) for names in (["a"], ["newcomer"])]
        engine.handle(events.StopRequested("it is enough"))
        await engine.close_store()
        memory = Engine(spec)
        memory.handle(events.JoinRequested(join("a"), memory.streams.open().number, "token"))
        memory.handle(events.GradientArrived("token", upload(0)))
        return answers[0], answers[1], await memory.recall(["a"], 0, 1)

    known, unknown, without_store = run(recalled())
    assert [number for number, *_ in known.bases] == [1, 2, 3]
    assert (unknown.bases, unknown.lost) == ((), 0)
    assert without_store.lost == 1
