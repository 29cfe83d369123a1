"""Writing a run: what is read back is what was written, what is kept of it, and disks that take no more."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import D, R, specification
from stored import (
    NAME,
    RUN_ID,
    basis_after,
    contents,
    read_only_folder,
    refused,
    round_of,
    rows,
    served,
    session,
    stored_run,
)
from values import same

from cospan.core.run_fields import Participation
from cospan.core.specification import basis_digest
from cospan.server.machine.events import DropMember, StoreMember, StoreSpecification
from cospan.server.machine.sessions import Departure, SiteClaim
from cospan.server.storage import lock, writer
from cospan.server.storage.reader import read_basis, read_reports, read_saved, read_state
from cospan.server.storage.writer import KEEP_EVERY, RunStore, create_store, open_store
from cospan.wire.errors import RunFileError
from cospan.wire.messages import AgentPhase, FinishCause


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_WAIT_SECONDS", 0.05)


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


def test_nothing_is_no_run(tmp_path: Path) -> None:
    refused(tmp_path / NAME, "there is no stored run")
    (tmp_path / NAME).mkdir()
    refused(tmp_path / NAME, "there is no stored run")
    with pytest.raises(
        RunFileError, match=r"cannot store a run in .*nowhere: No such file or directory; name another"
    ):
        open_store(tmp_path / "nowhere" / NAME)


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
