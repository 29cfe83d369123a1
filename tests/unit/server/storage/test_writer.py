"""A run on the disk: what is read back is what was written, and whatever cannot be used is refused as it is."""

import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import D, R, ring_site, specification
from stored import NAME, RUN_ID, basis_after, contents, read_only_folder, round_of, served, stored_run
from values import same

from cospan.client.learning.site_learner import SiteLearner
from cospan.core.aggregation.basis_update import BasisMove, next_basis
from cospan.core.method import Method, practical
from cospan.core.run_fields import Participation
from cospan.core.specification import basis_digest
from cospan.server.machine.events import DropMember, RoundRecord, StoreMember, StoreRound, StoreSpecification
from cospan.server.machine.sessions import Departure, Session, SiteClaim
from cospan.server.machine.snapshot import SavedRun
from cospan.server.storage import lock, reader, writer
from cospan.server.storage.reader import read_basis, read_past, read_reports, read_saved, read_state, spans
from cospan.server.storage.writer import KEEP_EVERY, RunStore, create_store, open_store
from cospan.wire.errors import RunFileError
from cospan.wire.messages import AgentPhase, FinishCause, Stamp


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_WAIT_SECONDS", 0.05)


def session(name: str, site: int | None = None) -> Session:
    return Session(
        f"token of {name}", f"process of {name}", (name,), 3, AgentPhase.CONNECTED, 7.0, 6.0, 2, name, site
    )


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def change(path: Path, statement: str) -> None:
    """What a careless hand, or a failing disk, may do to a file: without its seals."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


# What is written is what is read ------------------------------------------------------------------------


def test_a_new_run_is_what_was_asked_for(tmp_path: Path) -> None:
    spec = specification(rounds=7)
    store = create_store(tmp_path / NAME, spec, run_id=RUN_ID)
    state = read_state(store.path, check=True)
    assert (state.run_id, state.specification, state.rounds, state.incarnation) == (RUN_ID, spec, 0, 0)
    assert (state.stored, state.agents, state.kept, state.finish_cause) == (None, None, (0,), None)
    saved = read_saved(store.path)
    assert (saved.round, saved.basis, saved.sessions, saved.last_contributors) == (0, None, (), frozenset())
    assert same(read_basis(store.path).basis, spec.initial_basis())
    store.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [f".{NAME}.lock", NAME]


@pytest.mark.parametrize(("feature_dim", "page"), [(8_191, 4096), (8_192, 65_536)])
def test_large_bases_take_large_pages(tmp_path: Path, feature_dim: int, page: int) -> None:
    """From 128 KiB on; and they are read back as they were."""
    basis = basis_after(1, feature_dim)
    with served(tmp_path / NAME, feature_dim=feature_dim) as store:
        store.write([round_of(0, basis=basis)])
    assert rows(store.path, "PRAGMA page_size") == [(page,)]
    assert same(read_basis(store.path).basis, basis)


def test_what_is_read_back_is_what_was_written_bit_for_bit(tmp_path: Path) -> None:
    awkward = np.array([[-0.0, 5e-324], [1 / 3, np.pi], [1.0, -1.0], [2**-1074, 1e150]])
    squares = np.array([0.1, -0.0, 1e-300, 3.0])
    gone = Departure("c", 1, "it was lost: no word for 5 s", 0.0, 4)
    with served(tmp_path / NAME) as store:
        store.write([StoreMember(session("a", 5)), StoreMember(session("b")), StoreMember(session("c"))])
        store.write([round_of(0, departed_agent_ids=("ü",), absent_agent_ids=("b",))])
        store.write([round_of(1), DropMember("token of c", (gone,))])
        store.write([round_of(2, {"a": 2, "b": 1}, basis=awkward, step_memory=squares)])
        saved = read_saved(store.path)
        assert store.incarnation == 1
    assert same(saved.basis, awkward)
    assert same(saved.step_memory, squares)
    of_b: dict[str, Any] = {
        "instance_id": "process of b",
        "agent_ids": ("b",),
        "site_claim_id": "b",
        "site_index": None,
    }
    back = replace(session("a", 5), stream=0, phase=AgentPhase.LOST, last_seen=0.0, opened=0.0)
    assert saved.sessions == (back, replace(back, token="token of b", **of_b))
    assert saved.site_claims == {"a": SiteClaim(5, "process of a")}
    assert saved.departures == (gone,)
    assert (saved.round, saved.last_contributors) == (3, {"a", "b"})
    assert saved.rounds_counted == {"a": 3, "b": 3}
    assert saved.rounds_counted.newest == {"a": 2, "b": 2}
    assert saved.accepted == {2: {"a"}}
    reports = list(read_reports(tmp_path / NAME))
    expected = [
        round_of(0, departed_agent_ids=("ü",), absent_agent_ids=("b",)),
        round_of(1),
        round_of(2, {"a": 2, "b": 1}, basis=awkward),
    ]
    assert same(tuple(reports), tuple(replace(operation.record.report, basis=None) for operation in expected))


def test_a_process_that_joins_again_is_gone_no_more(tmp_path: Path) -> None:
    with served(tmp_path / NAME) as store:
        store.write([StoreMember(session("a", 5)), DropMember("token of a", (Departure("a", 0, "gone", 0.0, 2),))])
        assert [gone.agent_id for gone in read_saved(store.path).departures] == ["a"]
        store.write([StoreMember(replace(session("a", 5), instance_id="another process"))])
        saved = read_saved(store.path)
    assert saved.departures == ()
    assert saved.site_claims == {"a": SiteClaim(5, "another process")}


def test_the_fingerprint_that_the_first_agent_fixes_is_stored(tmp_path: Path) -> None:
    fixed = specification(rounds=0, feature_fingerprint="map-1")
    with served(tmp_path / NAME) as store:
        store.write([round_of(0), StoreSpecification(fixed), round_of(1)])
    assert read_state(tmp_path / NAME, check=True).specification == fixed
    digests = [row[0] for row in rows(tmp_path / NAME, "SELECT specification_digest FROM rounds ORDER BY round")]
    assert digests == [specification(rounds=0).digest(), fixed.digest()]


def test_contributors_are_written_where_they_change_and_counted_all_the_same(tmp_path: Path) -> None:
    fleets = [{"a", "b"}, {"a", "b"}, {"a"}, {"a"}, {"a", "b"}]
    with served(tmp_path / NAME, max_staleness=2, participation=Participation.QUORUM, quorum=1.0) as store:
        for number, fleet in enumerate(fleets):
            store.write([round_of(number, dict.fromkeys(fleet, number))])
    named = [row[0] for row in rows(tmp_path / NAME, "SELECT contributors FROM rounds ORDER BY round")]
    assert named == ['["a", "b"]', None, '["a"]', None, '["a", "b"]']
    saved = read_saved(tmp_path / NAME)
    assert saved.rounds_counted == {"a": 5, "b": 3}
    assert saved.rounds_counted.newest == {"a": 4, "b": 4}
    assert saved.accepted == {3: {"a"}, 4: {"a", "b"}}
    assert [report.contributors for report in read_reports(tmp_path / NAME)] == [2, 2, 1, 1, 2]


def test_after_a_restart_no_round_is_taken_for_one_with_stale_gradients(tmp_path: Path) -> None:
    """The last round before it had one; the first after it has the same agents, and all of them are fresh."""
    with served(tmp_path / NAME) as store:
        store.write([round_of(0)])
        store.write([round_of(1, {"a": 1, "b": 0})])
    again = open_store(tmp_path / NAME)
    again.write([round_of(2)])
    again.close()
    assert read_saved(tmp_path / NAME).accepted[2] == {"a", "b"}


def test_every_coordinator_is_a_new_incarnation(tmp_path: Path) -> None:
    path = stored_run(tmp_path, 2)
    for expected in (2, 3):
        store = open_store(path)
        store.begin()
        assert (store.incarnation, store.saved.round) == (expected, 2)
        store.close()
    assert read_state(path).incarnation == 3


def test_a_round_is_one_transaction(tmp_path: Path) -> None:
    """What an observer sees is before all of it or after all of it; a part that fails takes the rest with it."""
    with served(tmp_path / NAME) as store:
        store.write([round_of(0)])
        seen: list[str] = []
        store._connection.set_trace_callback(seen.append)
        store.write([StoreMember(session("a", 1)), round_of(1)])
        assert [line for line in seen if line.startswith(("BEGIN", "COMMIT"))] == ["BEGIN IMMEDIATE", "COMMIT"]
        with pytest.raises(RunFileError, match=r"UNIQUE constraint failed: rounds.round"):
            store.write([DropMember("token of a", ()), round_of(2), round_of(1)])
        saved = read_saved(store.path)
        assert (saved.round, len(saved.sessions)) == (2, 1)
        store.write([round_of(2)])
    assert read_state(tmp_path / NAME, check=True).rounds == 3


def test_a_failure_that_nobody_foresaw_leaves_no_transaction_open(tmp_path: Path) -> None:
    with served(tmp_path / NAME) as store:
        with pytest.raises(OverflowError):
            store.write([round_of(0, {"a": 0}), StoreMember(session("a", 2**70))])
        store.write([round_of(0)])
        assert read_saved(store.path).last_contributors == {"a", "b"}


def test_it_is_synced_and_logged_as_the_design_says(tmp_path: Path) -> None:
    with served(tmp_path / NAME) as store:
        assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)


# Bases that are kept ------------------------------------------------------------------------------------


def test_every_hundredth_basis_and_the_last_three_are_kept(tmp_path: Path) -> None:
    path = stored_run(tmp_path, 305)
    state = read_state(path, check=True)
    assert state.kept == (0, 100, 200, 300, 303, 304, 305)
    for number in state.kept[1:]:
        kept = read_basis(path, number)
        assert (kept.round, kept.state) == (number, state)
        assert same(kept.basis, basis_after(number))
    assert read_basis(path).round == 305
    digests = dict(rows(path, "SELECT round + 1, basis_sha256 FROM rounds"))
    assert digests == {number: basis_digest(basis_after(number)) for number in range(1, 306)}


@pytest.mark.parametrize("together", [2, 5, 16, 105])
def test_rounds_that_are_stored_together_keep_the_same_bases(tmp_path: Path, together: int) -> None:
    with served(tmp_path / NAME, checkpoint_interval=25) as store:
        for first in range(0, 105, together):
            store.write([round_of(number) for number in range(first, min(first + together, 105))])
            newest = min(first + together, 105)
            kept = {0, *range(25, newest, 25), *range(max(1, newest - 2), newest + 1)}
            assert set(read_state(store.path).kept) == kept
    state = read_state(tmp_path / NAME, check=True)
    assert state.rounds == 105
    for number in state.kept[1:]:
        assert same(read_basis(tmp_path / NAME, number).basis, basis_after(number))


def test_how_many_are_kept_is_a_setting_and_may_change(tmp_path: Path) -> None:
    path = stored_run(tmp_path, 10, checkpoint_interval=4)
    assert read_state(path).kept == (0, 4, 8, 9, 10)
    store = open_store(path, checkpoint_interval=1)
    for number in range(10, 14):
        store.write([round_of(number)])
    store.close()
    assert read_state(path).kept == (0, 4, 8, 9, 10, 11, 12, 13, 14)
    assert KEEP_EVERY == 100


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


def test_a_file_does_not_grow_with_every_round(tmp_path: Path) -> None:
    path = tmp_path / NAME
    big = {"feature_dim": 256, "rank": 8}
    with served(path, **big) as store:
        for number in range(60):
            store.write([round_of(number, basis=basis_after(number + 1, 256, 8))])
    assert path.stat().st_size < 10 * 256 * 8 * 8


# The end ------------------------------------------------------------------------------------------------


def test_a_run_that_is_over_is_read_and_not_gone_on_with(tmp_path: Path) -> None:
    """The round that was stored while it was stopped is no round of it."""
    path = tmp_path / NAME
    with served(path) as store:
        for number in range(5):
            store.write([round_of(number)])
        store.write_end(FinishCause.STOPPED, "an operator stopped it", 4)
    state = read_state(path, check=True)
    assert (state.rounds, state.finish_cause, state.finish_message) == (4, "stopped", "an operator stopped it")
    assert same(read_basis(path).basis, basis_after(4))
    before = contents(tmp_path)
    with pytest.raises(RunFileError, match=r"is over after 4 rounds \(an operator stopped it\); name"):
        open_store(path)
    assert contents(tmp_path) == before


# Refusals, each of which leaves everything as it was ----------------------------------------------------


def refused(path: Path, text: str) -> None:
    before = contents(path.parent)
    with pytest.raises(RunFileError, match=text) as refusal:
        open_store(path)
    assert "\n" not in str(refusal.value)
    assert str(path.parent) in str(refusal.value)
    assert contents(path.parent) == before


def test_nothing_is_no_run(tmp_path: Path) -> None:
    refused(tmp_path / NAME, "there is no stored run")
    (tmp_path / NAME).mkdir()
    refused(tmp_path / NAME, "there is no stored run")
    with pytest.raises(
        RunFileError, match=r"cannot store a run in .*nowhere: No such file or directory; name another"
    ):
        open_store(tmp_path / "nowhere" / NAME)


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


def test_a_run_is_never_written_over(tmp_path: Path) -> None:
    path = stored_run(tmp_path, 3)
    before = contents(tmp_path)
    with pytest.raises(RunFileError, match="holds a run already; name another folder"):
        create_store(path, specification(), run_id="another")
    assert contents(tmp_path) == before


def test_what_a_kill_at_the_beginning_leaves_is_no_run(tmp_path: Path) -> None:
    """The file has its name once it is whole; what was half made is made again."""
    (tmp_path / f".{NAME}.new").write_bytes(b"half a file")
    (tmp_path / f".{NAME}.new-journal").write_bytes(b"half a rollback journal")
    stored_run(tmp_path, 1)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [f".{NAME}.lock", NAME]


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


# Disks that are full, or read-only ----------------------------------------------------------------------


def write_for_ever(store: RunStore) -> None:
    for number in range(1000):
        store.write([StoreMember(session(f"agent-{number}")), round_of(number)])


def test_a_full_disk_loses_nothing_and_the_run_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A row's check sum, and so its length, would follow from the time: by two bytes, which may just fit.
    monkeypatch.setattr("cospan.server.storage.writer.time.time", lambda: 1.7e9)
    path = tmp_path / NAME
    with served(path, checkpoint_interval=1) as store:
        store._connection.execute("PRAGMA max_page_count = 20")
        with pytest.raises(RunFileError, match=r"database or disk is full; what was stored before is untouched"):
            write_for_ever(store)
        written = read_saved(path).round
        assert 0 < written < 1000
        with pytest.raises(RunFileError, match="full"):
            store.write([StoreMember(session(f"agent-{written}")), round_of(written)])
    store = open_store(path)
    assert (store.saved.round, len(store.saved.sessions)) == (written, written)
    assert same(store.saved.basis, basis_after(written))
    store.write([round_of(written)])
    store.close()
    assert read_state(path, check=True).rounds == written + 1


def test_a_folder_that_is_read_only() -> None:
    with read_only_folder() as folder:
        path = stored_run(folder, 3)
        folder.chmod(0o555)
        before = contents(folder)
        path.chmod(0o444)
        (folder / f".{NAME}.lock").chmod(0o444)
        with pytest.raises(RunFileError, match=r"cannot store a run in .*: Permission denied; name another folder"):
            open_store(path)
        with pytest.raises(RunFileError, match=r"cannot store a run in .*: Permission denied; name another folder"):
            create_store(folder / "another.sqlite", specification(), run_id="another")
        assert read_state(path, check=True).rounds == 3
        assert same(read_basis(path, 2).basis, basis_after(2))
        path.chmod(0o000)
        with pytest.raises(RunFileError, match=r"cannot read .*; check the disk and the permissions of"):
            read_state(path)
        path.chmod(0o444)
        assert contents(folder) == before


def test_a_file_that_is_read_only() -> None:
    with read_only_folder() as folder:
        path = stored_run(folder, 3)
        path.chmod(0o444)
        before = contents(folder)
        store = open_store(path)
        with pytest.raises(
            RunFileError, match=r"cannot store the run in .*: attempt to write a readonly database; what"
        ):
            store.begin()
        store.close()
        assert contents(folder)[NAME] == before[NAME]


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


def test_row_sums_that_are_due_seldom_survive_a_restart_in_every_round(tmp_path: Path) -> None:
    """Rounds 6 and 8 go by those of the round before: from the store, to the same bits."""
    spec = specification(practical(3), rounds=9)
    path = tmp_path / "coordinator.sqlite"
    create_store(path, spec, run_id="run-1").close()

    def agents() -> list[SiteLearner]:
        return [SiteLearner(ring_site(index, 1), spec, name=f"site-{index}", index=index) for index in (0, 1)]

    whole, broken = agents(), agents()
    basis, rows = spec.initial_basis(), None
    saved = restarted(path)
    for number in range(9):
        move = next_basis(basis, [a.learn(number, basis).contribution for a in whole], spec.method, number, rows)
        basis, rows = move.basis, move.step_memory
        before = spec.initial_basis() if saved.basis is None else saved.basis
        sent = [a.learn(number, before).contribution for a in broken]
        assert (sent[0].pooled is not None) == (number in (0, 1, 2, 3, 4, 5, 7))
        after = next_basis(before, sent, spec.method, number, saved.step_memory)
        stamp = Stamp("run-1", 1, number + 1, number + 1)
        restarted(path, StoreRound(RoundRecord(stamp, {"a": number, "b": number}, 2.0, after, 1.0, 0.1)))
        saved = restarted(path)
        assert saved.basis is not None
        assert saved.step_memory is not None
        assert (saved.basis.tobytes(), saved.step_memory.tobytes()) == (basis.tobytes(), rows.tobytes())


# What comes with a basis ----------------------------------------------------------------------------------------


def test_head_covariances_are_stored_with_their_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Method, "has_head_covariance", True)
    covariances = [np.diag([number + 1 / 3, 5e-324]) for number in range(3)]
    with served(tmp_path / NAME) as store:
        assert same(read_basis(store.path).head_covariance, np.eye(R)), "the first one is not stored"
        for number, covariance in enumerate(covariances):
            store.write([round_of(number, head_covariance=covariance)])
    assert same(read_saved(store.path).head_covariance, covariances[2])
    assert same(read_basis(store.path, 2).head_covariance, covariances[1])
    found = read_past(store.path, ["a"], 0, 3, most=9).bases
    assert all(same(w, at) for (_, _, w), at in zip(found, [np.eye(R), *covariances], strict=False))
    digests = rows(store.path, "SELECT basis_sha256 FROM rounds ORDER BY round")
    assert digests == [(basis_digest(basis_after(number)),) for number in (1, 2, 3)], "the digest is of B alone"
    change(store.path, "UPDATE bases SET head_covariance = zeroblob(32) WHERE round = 2")
    with pytest.raises(RunFileError, match="the basis after 2 rounds is not the one"):
        read_state(store.path, check=True)


def memories(path: Path) -> list[int]:
    return [number for (number,) in rows(path, "SELECT round FROM step_memory ORDER BY round")]


def test_a_step_memory_is_stored_when_it_changes(tmp_path: Path) -> None:
    path, changed = tmp_path / NAME, {0: np.ones(30), 2: np.full(30, 1 / 3), 6: np.full(30, -0.0)}
    memory = changed[0]
    with served(path) as store:
        for number in range(9):
            memory = changed.get(number, memory)
            store.write([round_of(number, step_memory=memory)])
            assert same(read_saved(path).step_memory, memory)
            if number == 5:
                assert memories(path) == [3], "that of round 0 is of no kept basis"
    assert memories(path) == [7], "bases 7, 8 and 9 are kept"
    reopened = open_store(path)
    reopened.write([round_of(9, step_memory=reopened.saved.step_memory)])
    assert memories(path) == [7], "a coordinator that resumes goes on with the same"
    reopened.take_back(9)
    reopened.close()
    assert same(read_saved(path).step_memory, memory)


def test_checkpoints_keep_the_step_memory_that_they_need(tmp_path: Path) -> None:
    path, memory = tmp_path / NAME, np.zeros(3)
    with served(path, checkpoint_interval=10) as store:
        for number in range(35):
            if number in (0, 4, 6, 12, 17, 21, 33):
                memory = np.full(3, float(number))
            store.write([round_of(number, step_memory=memory)])
    assert read_state(path).kept == (0, 10, 20, 30, 33, 34, 35)
    assert memories(path) == [7, 18, 22, 34], "each is the newest up to a kept basis"


def test_rounds_that_are_stored_together_lose_no_step_memory(tmp_path: Path) -> None:
    """The first of them change it, and their bases are dropped at once; the last ones only keep it."""
    memory = np.full(3, 0.5)
    with served(tmp_path / NAME) as store:
        store.write([round_of(number, step_memory=memory if number else np.ones(3)) for number in range(8)])
        assert memories(store.path) == [6]
        assert same(read_saved(store.path).step_memory, memory)


def test_a_step_memory_that_was_taken_back_is_stored_with_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    memory = np.full(3, 0.5)
    with served(tmp_path / NAME) as store:
        with monkeypatch.context() as patched:
            patched.setattr(writer, "drop_memories", full)
            with pytest.raises(RunFileError, match="disk is full"):
                store.write([round_of(0, step_memory=memory)])
        store.write([round_of(0, step_memory=memory)])
        assert same(read_saved(store.path).step_memory, memory)


def test_a_step_memory_that_was_altered_is_seen(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with served(path) as store:
        store.write([round_of(0, step_memory=np.ones(3))])
    change(path, "UPDATE step_memory SET numbers = zeroblob(24)")
    for look in (lambda: read_state(path, check=True), lambda: read_saved(path)):
        with pytest.raises(RunFileError, match="the step memory after 1 rounds is not the one that was stored"):
            look()
