"""Stored runs that others have made: refused before anything of theirs is executed, and in bounded time."""

import itertools
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stored import NAME, round_of, served, stored_run

from cospan.server.storage import lock, schema, writer
from cospan.server.storage.lock import holder_of, lock_of
from cospan.server.storage.reader import read_basis, read_reports, read_saved, read_state, seal
from cospan.server.storage.writer import open_store
from cospan.wire.errors import RunFileError

SECONDS = 10.0
"""What a refusal may take, on a machine that does other things as well."""
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"
READINGS: tuple[Callable[[Path], object], ...] = (
    read_state,
    read_saved,
    read_basis,
    lambda path: list(read_reports(path)),
    open_store,
)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_WAIT_SECONDS", 0.05)


def assert_refused(path: Path, text: str) -> None:
    for read in READINGS:
        begun = time.monotonic()
        with pytest.raises(RunFileError, match=text):
            read(path)
        assert time.monotonic() - begun < SECONDS


@pytest.mark.parametrize(
    ("statements", "text"),
    [
        (["DROP TABLE rounds", f"CREATE VIEW rounds AS {ENDLESS}"], "it holds the view 'rounds'"),
        ([f"CREATE VIEW more AS {ENDLESS}"], "it holds the view 'more'"),
        (["CREATE TRIGGER t AFTER UPDATE ON run BEGIN DELETE FROM rounds; END"], "it holds the trigger 't'"),
        (["CREATE INDEX i ON rounds (abs(seconds))"], "it holds the index 'i'"),
        (["CREATE TABLE more (x)"], "it holds the table 'more'"),
        (["ALTER TABLE rounds ADD COLUMN x AS (hex(zeroblob(9)))"], "it holds the table 'rounds', and a run has n"),
        (["ALTER TABLE run RENAME COLUMN created TO made"], "it holds the table 'run', and a run has none, or"),
        (["ANALYZE"], "it holds the table 'sqlite_stat1'"),
        (["DROP TABLE site_claims"], "it lacks 'site_claims'"),
    ],
)
def test_a_file_that_holds_anything_but_our_tables_is_refused(
    tmp_path: Path, statements: list[str], text: str
) -> None:
    path = stored_run(tmp_path, 3)
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    assert_refused(path, f"cannot be read as a stored run: {text}")


def lead_astray(path: Path) -> None:
    """Gives the table of rounds 400¹⁵ rows: fifteen levels of pages, each 400 times the child of the one above."""
    connection = sqlite3.connect(path)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'rounds'").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    leaf = bytes(data[(root - 1) * size : root * size])
    count = len(data) // size
    pages = [root, *range(count + 1, count + 16)]
    data += bytes(15 * size)
    for page, child in itertools.pairwise(pages):
        cells = [child.to_bytes(4, "big") + b"\x01"] * 400
        start = size - 5 * len(cells)
        places = b"".join((start + 5 * number).to_bytes(2, "big") for number in range(len(cells)))
        head = b"\x05\0\0" + len(cells).to_bytes(2, "big") + start.to_bytes(2, "big") + b"\0"
        content = head + child.to_bytes(4, "big") + places
        data[(page - 1) * size : page * size] = content.ljust(start, b"\0") + b"".join(cells)
    data[(pages[-1] - 1) * size :] = leaf
    data[28:32] = (len(data) // size).to_bytes(4, "big")
    path.write_bytes(data)


def test_pages_that_lead_to_endless_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To count them is one step of a statement, which only another thread can interrupt."""
    path = stored_run(tmp_path, 3)
    lead_astray(path)
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.0)
    monkeypatch.setattr(schema, "_LEAST_SECONDS", 0.2)
    begun = time.monotonic()
    with pytest.raises(RunFileError, match="to read it takes longer than its size allows"):
        read_state(path)
    assert time.monotonic() - begun < SECONDS


def test_rounds_that_are_not_in_their_places_are_refused(tmp_path: Path) -> None:
    path = stored_run(tmp_path, 5)
    connection = sqlite3.connect(path)
    _, *row, _ = connection.execute("SELECT * FROM rounds WHERE round = 0").fetchone()
    values = (-7, *row)
    connection.execute("DELETE FROM rounds WHERE round = 0")
    connection.execute(f"INSERT INTO rounds VALUES ({', '.join('?' * 12)})", (*values, seal(values)))
    connection.commit()
    connection.close()
    with pytest.raises(RunFileError, match="round -7 stands in the place of round 0"):
        list(read_reports(path))


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_a_pipe_beside_a_file_is_not_waited_for(tmp_path: Path, suffix: str) -> None:
    path = stored_run(tmp_path, 3)
    os.mkfifo(path.with_name(path.name + suffix))
    assert_refused(path, "cannot read .*: it is a pipe, not a file")


def test_a_lock_that_is_a_pipe_or_a_link_is_not_used(tmp_path: Path) -> None:
    path = stored_run(tmp_path, 3)
    lock_of(path).unlink()
    os.mkfifo(lock_of(path))
    assert holder_of(path) is None
    lock_of(path).unlink()
    mine = tmp_path / "mine"
    mine.write_text("precious")
    lock_of(path).symlink_to(mine)
    with pytest.raises(RunFileError, match="cannot store a run in"):
        open_store(path)
    assert mine.read_text() == "precious"


# Permissions ----------------------------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.glob(f"{NAME}*")}


def test_only_the_owner_can_read_a_stored_run(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with served(tmp_path / NAME) as running:
            running.write([round_of(0)])
            assert modes(tmp_path) == {NAME: 0o600, f"{NAME}-wal": 0o600, f"{NAME}-shm": 0o600}
    finally:
        os.umask(before)
    (tmp_path / NAME).chmod(0o644)  # as earlier versions made it
    open_store(tmp_path / NAME).close()
    assert modes(tmp_path) == {NAME: 0o600}


# Locked by another program --------------------------------------------------------------------------------------


class Clock:
    """A clock that each reading advances by half a second, and that calls `then` from a given time on."""

    def __init__(self, at: float, then: Callable[[], object]) -> None:
        self.now, self._at, self._then = 0.0, at, then

    def __call__(self) -> float:
        self.now += 0.5
        if self.now >= self._at:
            self._then()
        return self.now


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], writer.RunStore]:
    """A store that another program has locked until a moment of the store's own clock."""
    monkeypatch.setattr(writer, "_TRY_SECONDS", 0.0)
    path = stored_run(tmp_path, 3)

    def until(seconds: float) -> writer.RunStore:
        other = sqlite3.connect(path, isolation_level=None)
        running = open_store(path)
        running._clock = Clock(seconds, other.close)
        other.execute("BEGIN IMMEDIATE")
        return running

    return until


def test_a_store_that_another_program_has_locked_is_waited_for(
    locked: Callable[[float], writer.RunStore], caplog: pytest.LogCaptureFixture
) -> None:
    running = locked(8.0)
    running.begin()
    running.write([round_of(3)])
    running.close()
    assert read_state(running.path).rounds == 4
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"another program has locked {running.path}; rounds wait up to 15 s"]


def test_the_wait_for_another_program_is_bounded(locked: Callable[[float], writer.RunStore]) -> None:
    running = locked(1e9)
    with pytest.raises(RunFileError, match=r"another program has had it locked for 15 s; .*: end that program"):
        running.write([round_of(3)])
    assert 15.0 <= running._clock() <= 17.0  # type: ignore[operator]
    running.close()
    assert read_state(running.path).rounds == 3


def test_a_locked_file_is_named_where_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored_run(tmp_path, 3)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("BEGIN EXCLUSIVE")
    path.with_name(f"{NAME}-wal").touch()  # else it would be opened as a file that does not change
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.1)
    with pytest.raises(RunFileError, match="another program has had it locked for"):
        read_state(path)
    connection.close()


def test_reading_leaves_no_thread_behind(tmp_path: Path) -> None:
    path = stored_run(tmp_path, 3)
    before = threading.active_count()
    read_state(path)
    next(read_reports(path))
    assert threading.active_count() == before
