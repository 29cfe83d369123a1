"""Reading stored runs: bases, rounds recalled for agents' files, refusals, and runs whose coordinator is gone."""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from runs import CoordinatorDriver, D, R, announced, join, ring_site, run, specification, until, upload
from stored import (
    NAME,
    RUN_ID,
    basis_after,
    change,
    contents,
    read_only_folder,
    refused,
    round_of,
    served,
    session,
    stored_run,
)
from values import same

from cospan.client.learning.site_learner import SiteLearner
from cospan.core.aggregation.basis_update import BasisMove, next_basis
from cospan.core.method import Method, full_history, practical
from cospan.core.run_fields import Participation
from cospan.server.machine import events, restored_state
from cospan.server.machine.events import DropMember, RoundRecord, StoreMember, StoreRound
from cospan.server.machine.membership import needed_from
from cospan.server.machine.sessions import Departure
from cospan.server.machine.snapshot import SavedRun
from cospan.server.machine.state import CoordinatorConfig
from cospan.server.runtime.engine import Engine
from cospan.server.storage import reader
from cospan.server.storage.reader import read_basis, read_past, read_reports, read_saved, read_state, spans
from cospan.server.storage.writer import create_store, open_store
from cospan.wire.errors import RunFileError
from cospan.wire.messages import RecalledRounds, Stamp

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


# Bases that are kept ------------------------------------------------------------------------------------


def test_a_round_without_a_kept_basis_says_which_there_are(tmp_path: Path) -> None:
    path = stored_run(tmp_path, 13, checkpoint_interval=5)
    with pytest.raises(
        RunFileError, match=r"has not kept the basis after 7 rounds; it keeps those of 0, 5, 10-13$"
    ):
        read_basis(path, 7)
    with pytest.raises(RunFileError, match="has no basis after 14 rounds, for 13 are done; it keeps"):
        read_basis(path, 14)
    with pytest.raises(RunFileError, match=r"no.*basis after -1 rounds"):
        read_basis(path, -1)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((), ""),
        ((0,), "0"),
        ((0, 1, 2, 5, 7, 8), "0-2, 5, 7-8"),
        (tuple(range(0, 1000, 10)), "0, 10, 20, 30, …, 970, 980, 990"),
    ],
)
def test_numbers_are_said_in_spans(numbers: tuple[int, ...], text: str) -> None:
    assert spans(numbers) == text


# Refusals, each of which leaves everything as it was ----------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = stored_run(tmp_path, 30, checkpoint_interval=1)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "cannot be read as a stored run: .*; it was left as it is: bring back a copy, or name another")


@pytest.mark.parametrize(
    "garbage", [b"no database at all\n" * 100, b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 8000]
)
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / NAME).write_bytes(garbage)
    refused(tmp_path / NAME, "cannot be read as a stored run")


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    change(tmp_path / NAME, "CREATE TABLE run (run_id TEXT)")
    refused(tmp_path / NAME, "cannot be read as a stored run: it is of another program")


@pytest.mark.parametrize("format_number", [1, 3])
def test_a_file_of_another_version_is_refused(tmp_path: Path, format_number: int) -> None:
    """One of format 1, which had other columns, is whole: it must not be called damaged."""
    path = stored_run(tmp_path, 3)
    change(path, "ALTER TABLE site_claims RENAME TO former")
    change(path, f"PRAGMA user_version = {format_number}")
    refused(path, f"has format {format_number}, and this version of Cospan knows 2; use the version that wrote it")


def test_no_byte_can_change_unseen(tmp_path: Path) -> None:
    """A flipped bit, one after the other over the whole file: it is seen, or it is in a part that says nothing."""
    path = stored_run(tmp_path, 6)
    data, found = path.read_bytes(), 0
    before, expected = read_state(path), read_saved(path)
    for at in range(0, len(data), 211):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        try:
            state, saved = read_state(path, check=True), read_saved(path)
        except RunFileError:
            found += 1
            continue
        assert state == before
        assert same(saved, expected)
    assert found > 10


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("UPDATE run SET run_id = 'another'", "a row of run is not the one that was stored"),
        ("UPDATE rounds SET weight = 3 WHERE round = 1", "a row of rounds is not the one"),
        ("UPDATE rounds SET contributors = 'x' WHERE round = 0", "a row of rounds is not the one"),
        ("UPDATE bases SET basis = zeroblob(64) WHERE round = 2", "the basis after 2 rounds is not the one"),
        ("UPDATE bases SET head_covariance = zeroblob(32) WHERE round = 4", "the basis after 4 rounds is not"),
        ("UPDATE sessions SET reconnects = 0", "a row of sessions is not the one"),
        ("UPDATE site_claims SET site_index = 6", "a row of site_claims is not the one"),
        ("UPDATE departures SET round = 9", "a row of departures is not the one"),
        ("DELETE FROM rounds WHERE round = 1", "it has 3 rounds, and the last is round 3"),
        ("DELETE FROM bases WHERE round = 4", "the basis after its 4 rounds is missing"),
        ("DELETE FROM run", "it holds no run"),
        ("UPDATE run SET run_id = CAST(x'ff' AS TEXT)", "Could not decode to UTF-8"),
        ("DROP TABLE site_claims", "it lacks .site_claims."),
    ],
)
def test_a_changed_value_is_seen(tmp_path: Path, statement: str, text: str) -> None:
    path = tmp_path / NAME
    with served(path) as store:
        store.write([StoreMember(session("a", 5)), DropMember("x", (Departure("c", 1, "gone", 0.0, 4),))])
        for number in range(4):
            store.write([round_of(number)])
    change(path, statement)
    refused(path, text)


def test_a_specification_that_means_something_else_today_is_refused(tmp_path: Path) -> None:
    path = stored_run(tmp_path, 1)
    connection = sqlite3.connect(path)
    *values, _ = connection.execute("SELECT * FROM run").fetchone()
    values[4] = "0" * 64
    with connection:
        connection.execute("UPDATE run SET specification_digest = ?, seal = ?", (values[4], reader.seal(values)))
    connection.close()
    refused(path, "is of another version of Cospan")


# Read while it is written -------------------------------------------------------------------------------


def test_a_run_is_read_while_its_coordinator_writes(tmp_path: Path) -> None:
    """One moment of it: also where bases are pruned between two looks."""
    with served(tmp_path / NAME) as store:
        for number in range(20):
            store.write([round_of(number)])
            reports = read_reports(store.path)
            assert next(reports).closed_round == 0
            kept = read_basis(store.path)
            assert (kept.round, read_state(store.path).rounds) == (number + 1, number + 1)
            assert same(kept.basis, basis_after(number + 1))
            store.write([StoreMember(session("a"))])
            assert len(list(reports)) == number


# What a coordinator that is gone has left ----------------------------------------------------------------------


def test_a_log_that_cannot_be_read_where_it_is_says_what_to_do() -> None:
    """A coordinator was killed, and its disk is now mounted read-only."""
    with read_only_folder() as folder:
        with served(folder / NAME) as store:
            store.write([round_of(0)])
            left = {name: data for name, data in contents(folder).items() if not name.endswith("-shm")}
        for name, data in left.items():
            (folder / name).write_bytes(data)
        assert set(left) == {NAME, f"{NAME}-wal"}
        folder.chmod(0o555)
        with pytest.raises(
            RunFileError, match=f"where the folder cannot be written to, copy {NAME} and {NAME}-wal to"
        ):
            read_state(folder / NAME)


def test_the_rounds_in_the_log_of_a_killed_coordinator_are_there(tmp_path: Path) -> None:
    with served(tmp_path / NAME) as store:
        store.write([round_of(0)])
        left = contents(tmp_path)
    for name, data in left.items():
        (tmp_path / name).write_bytes(data)
    assert read_state(tmp_path / NAME).rounds == 1
    store = open_store(tmp_path / NAME)
    assert store.saved.round == 1
    store.close()


def test_the_shapes_are_those_of_the_run(tmp_path: Path) -> None:
    kept = read_basis(stored_run(tmp_path, 2))
    assert (kept.basis.shape, kept.basis.dtype) == ((D, R), np.float64)


def closed(number: int, contributors: Mapping[str, int]) -> StoreRound:
    """A round that has closed; `contributors` have the rounds of their gradients."""
    move = BasisMove(np.eye(D, R), np.eye(D, R))
    stamp = Stamp("run-1", 1, number + 1, number + 1)
    return StoreRound(RoundRecord(stamp, contributors, float(len(contributors)), move, closed=1.0, seconds=0.1))


def restarted(path: Path, *rounds: StoreRound) -> SavedRun:
    """The run as a resuming coordinator finds it, and stores these rounds."""
    store = open_store(path)
    for each in rounds:
        store.write([each])
    store.close()
    return store.saved


def test_a_run_that_was_left_before_its_first_round_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.sqlite"
    create_store(path, specification(), run_id="run-1").close()
    saved = restarted(path)
    assert (saved.run_id, saved.round, saved.basis) == ("run-1", 0, None)
    assert not saved.last_contributors
    assert not saved.accepted
    assert not saved.rounds_counted


def test_a_round_after_a_restart_is_not_taken_for_the_stale_one_before_it(tmp_path: Path) -> None:
    """The names are those of the round before, and the gradients are not."""
    path = tmp_path / "coordinator.sqlite"
    quorum = specification(rounds=9, participation=Participation.QUORUM, quorum=0.5, max_staleness=2)
    create_store(path, quorum, run_id="run-1").close()
    restarted(path, closed(0, {"a": 0}), closed(1, {"a": 1, "b": 0}))
    restarted(path, closed(2, {"a": 2, "b": 2}), closed(3, {"a": 3, "b": 3}))
    saved = restarted(path)
    assert saved.accepted[2] == saved.accepted[3] == {"a", "b"}
    assert saved.rounds_counted == {"a": 4, "b": 3}


@pytest.mark.parametrize(
    ("method", "due"),
    [(practical(3), range(8)), (full_history(3), (0, 1, 2, 3, 4, 5, 7))],
    ids=["practical", "full"],
)
def test_what_is_pooled_seldom_survives_a_restart_in_every_round(
    tmp_path: Path, method: Method, due: Sequence[int]
) -> None:
    """The other rounds go by that of the round before: from the store, to the same bits."""
    spec = specification(method, rounds=9)
    path = tmp_path / "coordinator.sqlite"
    create_store(path, spec, run_id="run-1").close()

    def agents() -> list[SiteLearner]:
        return [SiteLearner(ring_site(index, 1), spec, name=f"site-{index}", index=index) for index in (0, 1)]

    whole, broken = agents(), agents()
    (basis, covariance), pooled = announced(spec), None
    saved = restarted(path)
    for number in range(9):
        sent = [a.learn(number, basis, covariance).contribution for a in whole]
        move = next_basis(basis, sent, spec.method, number, pooled, head_covariance=covariance)
        basis, covariance, pooled = move.basis, move.head_covariance, move.step_memory
        before, at = announced(spec) if saved.basis is None else (saved.basis, saved.head_covariance)
        sent = [a.learn(number, before, at).contribution for a in broken]
        assert (sent[0].pooled is not None) == (number in due)
        after = next_basis(before, sent, spec.method, number, saved.step_memory, head_covariance=at)
        stamp = Stamp("run-1", 1, number + 1, number + 1)
        restarted(path, StoreRound(RoundRecord(stamp, {"a": number, "b": number}, 2.0, after, 1.0, 0.1)))
        saved = restarted(path)
        assert saved.basis is not None
        assert saved.step_memory is not None
        assert (saved.basis.tobytes(), saved.step_memory.tobytes()) == (basis.tobytes(), pooled.tobytes())
        assert same(saved.head_covariance, covariance)
