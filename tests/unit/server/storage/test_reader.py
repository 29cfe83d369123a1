"""Past rounds that are kept for agents' files: which bases stay, what is recalled, a last round taken back."""

from pathlib import Path

import numpy as np
import pytest
from runs import CoordinatorDriver, D, R, join, run, specification, until, upload
from stored import NAME, RUN_ID, basis_after, round_of, served, stored_run
from values import same

from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.server.machine import events
from cospan.server.machine.dispatch import restored_state
from cospan.server.machine.membership import needed_from
from cospan.server.runtime.engine import Engine
from cospan.server.storage import writer
from cospan.server.storage.reader import read_past, read_saved, read_state
from cospan.server.storage.writer import create_store, open_store
from cospan.wire.codec.past_rounds import decode_recalled, encode_recalled
from cospan.wire.errors import InvalidMessageError, RunFileError
from cospan.wire.messages import FinishCause, RecalledRounds, Stamp

AGENTS = ("a", "b")


# Which bases are kept ---------------------------------------------------------------------------------------


def test_the_oldest_file_of_the_fleet_decides_which_bases_are_needed() -> None:
    fleet = CoordinatorDriver()
    assert needed_from(fleet.state) is None
    fleet.join("a")
    assert needed_from(fleet.state) is None, "a process without a file needs none"
    b = fleet.join("b", keeps_state=True)
    assert needed_from(fleet.state) == 0, "nobody knows yet how far its file has come"
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
    state = restored_state(
        read_saved(tmp_path / NAME), incarnation=2, start_seconds=1.0, return_seconds=1.0, now=0.0
    )
    assert needed_from(state) == 0


@pytest.mark.parametrize("together", [1, 4])
def test_bases_that_some_file_lacks_are_kept_and_then_dropped(tmp_path: Path, together: int) -> None:
    needed = [0]
    with served(tmp_path / NAME, checkpoint_interval=10) as made:
        made.needed_from = lambda: needed[0]

        def kept_after(until: int) -> tuple[int, ...]:
            for first in range(read_state(made.path).rounds, until, together):
                made.write([round_of(number) for number in range(first, min(first + together, until))])
            return read_state(made.path).kept

        assert kept_after(16) == tuple(range(17))
        needed[0] = 12
        assert kept_after(24) == (0, 10, *range(12, 25))
        needed[0] = 0
        assert kept_after(28) == (0, 10, *range(12, 29)), "what is gone does not come back"
        needed[0] = 100
        assert kept_after(32) == (0, 10, 20, 30, 31, 32)
    assert read_state(tmp_path / NAME, check=True).rounds == 32


def test_what_is_kept_for_files_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_MOST_WAITING_BYTES", 5 * 8 * D * R)
    with served(tmp_path / NAME) as made:
        made.needed_from = lambda: 0
        for number in range(20):
            made.write([round_of(number)])
    assert read_state(tmp_path / NAME).kept == (0, *range(16, 21))


def test_a_write_that_failed_has_dropped_nothing(tmp_path: Path) -> None:
    with served(tmp_path / NAME) as made:
        for number in range(6):
            made.write([round_of(number)])
        with pytest.raises(RunFileError):
            made.write([round_of(6), round_of(6)])
        made.needed_from = lambda: 0
        made.write([round_of(6)])
    assert read_state(tmp_path / NAME, check=True).kept == (0, 4, 5, 6, 7)


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
    assert [number for number, _ in found.bases] == list(range(3, 12))
    assert all(same(basis, basis_after(number)) for number, basis in found.bases)
    assert (found.next_round, found.lost) == (12, 0)
    assert [number for number, _ in read_past(path, ["b"], 3, 12, most=100).bases] == [3, 7, 8, 10, 11]
    page = read_past(path, ["b"], 3, 12, most=2)
    assert ([number for number, _ in page.bases], page.next_round) == ([3, 7], 8)
    assert read_past(path, ["c"], 0, 12, most=100).bases == ()


def test_the_first_basis_of_a_run_is_not_stored_and_recalled_all_the_same(tmp_path: Path) -> None:
    ((number, basis), *_) = read_past(kept_run(tmp_path), ["a"], 0, 2, most=1).bases
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
        stream = engine.open_stream()
        engine.handle(events.JoinRequested(join("a", keeps_state=True), stream.number, "token"))
        for number in range(4):
            engine.handle(events.GradientArrived("token", upload(number)))
            if number == 0:  # that is told when it is on the disk
                await until(engine, lambda: engine.state.round == 1)
        assert engine.state.durable_round < engine.state.round, "the others run ahead of it"
        answers = [await engine.recall(names, 1, 99) for names in (["a"], ["newcomer"])]
        engine.handle(events.StopRequested("it is enough"))
        await engine.close_store()
        memory = Engine(spec)
        memory.handle(events.JoinRequested(join("a"), memory.open_stream().number, "token"))
        memory.handle(events.GradientArrived("token", upload(0)))
        return answers[0], answers[1], await memory.recall(["a"], 0, 1)

    known, unknown, without_store = run(recalled())
    assert [number for number, _ in known.bases] == [1, 2, 3]
    assert (unknown.bases, unknown.lost) == ((), 0)
    assert without_store.lost == 1


# On the wire --------------------------------------------------------------------------------------------------


def test_what_is_recalled_arrives_as_it_was() -> None:
    spec = specification()
    sent = RecalledRounds(tuple((number, basis_after(number)) for number in (3, 5)), 6)
    message = encode_recalled(Stamp(RUN_ID, 1, 9, 9), sent)
    found = decode_recalled(message, spec, from_round=3, before_round=9)
    assert [number for number, _ in found.bases] == [3, 5]
    assert all(same(basis, basis_after(number)) for number, basis in found.bases)
    assert (found.next_round, found.lost) == (6, 0)


@pytest.mark.parametrize(
    ("rounds", "next_round", "shape", "says"),
    [
        ([2], 6, (D, R), "it must be 3 to 8"),
        ([4, 4], 6, (D, R), "it must be 5 to 8"),
        ([9], 9, (D, R), "it must be 3 to 8"),
        ([3], 3, (D, R), "next_round is 3"),
        ([], 3, (D, R), "next_round is 3"),
        ([3], 10, (D, R), "at most 9"),
        ([3], 6, (D, R + 1), "this run needs 4 × 2"),
    ],
)
def test_an_answer_that_is_none_is_refused(
    rounds: list[int], next_round: int, shape: tuple[int, int], says: str
) -> None:
    bases = tuple((number, np.eye(*shape)) for number in rounds)
    message = encode_recalled(Stamp(RUN_ID, 1, 9, 9), RecalledRounds(bases, next_round))
    with pytest.raises(InvalidMessageError, match=says):
        decode_recalled(message, specification(), from_round=3, before_round=9)


def test_an_old_coordinators_heartbeat_says_nothing() -> None:
    assert pb.CollaborateRequest(heartbeat=pb.Heartbeat()).heartbeat.saved_rounds == 0


# A run that is taken up after its end -------------------------------------------------------------------------


def test_a_run_that_did_all_its_rounds_is_reopened_before_the_last(tmp_path: Path) -> None:
    with served(tmp_path / NAME) as made:
        for number in range(5):
            made.write([round_of(number)])
        made.write_end(FinishCause.ROUNDS_REACHED, "all 5 rounds are done", 5)
    with pytest.raises(RunFileError, match="is over after 5 rounds"):
        open_store(tmp_path / NAME)
    reopened = open_store(tmp_path / NAME, reopen=True)
    assert (reopened.saved.round, reopened.saved.last_contributors) == (4, {"a", "b"})
    assert reopened.saved.basis is not None
    assert same(reopened.saved.basis, basis_after(4))
    reopened.write([round_of(4)])
    reopened.close()
    state = read_state(tmp_path / NAME, check=True)
    assert (state.rounds, state.finish_cause) == (5, None)


def test_a_run_that_was_stopped_is_not_reopened(tmp_path: Path) -> None:
    with served(tmp_path / NAME) as made:
        made.write([round_of(0)])
        made.write_end(FinishCause.STOPPED, "an administrator stopped it", 1)
    with pytest.raises(RunFileError, match="is over after 1 rounds"):
        open_store(tmp_path / NAME, reopen=True)


def test_a_round_that_no_agent_was_told_of_is_taken_back(tmp_path: Path) -> None:
    with served(tmp_path / NAME) as made:
        for number in range(5):
            made.write([round_of(number)])
        made.take_back(4)
    state = read_state(tmp_path / NAME, check=True)
    assert (state.rounds, state.finish_cause, state.kept[-1]) == (4, None, 4)
