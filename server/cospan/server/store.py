"""A run on the disk: one SQLite file, one transaction for every round.

The file is `coordinator.sqlite` of a run folder. A `RunStore` belongs to one coordinator at a time, which holds a
lock beside it; `cospan.server.archive` reads it without. Nothing is changed in a file that cannot be read as a
whole: a damaged one, one of a newer version, or one on a read-only or full disk is refused as it is.
"""

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.core.specification import RunSpecification
from cospan.server.archive import SCHEMA, read_saved, read_state
from cospan.server.events import DropMember, RoundRecord, StoreMember, StoreRound, StoreSpecification
from cospan.server.saved import SavedRun
from cospan.wire.errors import RunFileError
from cospan.wire.messages import FinishCause
from cospan.wire.spec_file import to_toml

Operation: TypeAlias = StoreRound | StoreSpecification | StoreMember | DropMember
"""What can be stored."""

KEEP_EVERY = 100
_NEWEST_BASES = 3
"""So many of the newest bases are kept, whatever their round."""
_BUSY_SECONDS = 5.0

_TABLES = """
CREATE TABLE run (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    run_id TEXT NOT NULL,
    created REAL NOT NULL,            -- seconds since 1970
    specification TEXT NOT NULL,      -- as spec.toml
    specification_digest TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    finish_cause TEXT,                -- NULL while the run can go on
    finish_message TEXT
);
CREATE TABLE rounds (
    round INTEGER PRIMARY KEY,        -- that closed
    stored REAL NOT NULL,             -- seconds since 1970
    specification_digest TEXT NOT NULL,
    contributors TEXT,                -- JSON: names, or name -> round of a stale gradient; NULL: as the row before
    weight REAL NOT NULL,
    seconds REAL NOT NULL,
    basis_movement REAL NOT NULL,
    orthonormality_error REAL NOT NULL,
    departed TEXT,                    -- JSON list of names; NULL for none
    absent TEXT,                      -- the same
    basis BLOB,                       -- B of the next round, float64, little-endian, C order; NULL where pruned
    row_squares BLOB                  -- the same
);
CREATE TABLE sessions (
    token TEXT PRIMARY KEY, instance_id TEXT NOT NULL, agents TEXT NOT NULL, reconnects INTEGER NOT NULL,
    holder TEXT NOT NULL, site_index INTEGER
);
CREATE TABLE seats (holder TEXT PRIMARY KEY, site_index INTEGER NOT NULL, instance_id TEXT NOT NULL);
CREATE TABLE departures (
    agent TEXT PRIMARY KEY, round INTEGER NOT NULL, cause TEXT NOT NULL, reconnects INTEGER NOT NULL
);
"""


class RunStore:
    """A run on the disk, for the coordinator that serves it. One thread at a time may call its methods."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: IO[str], saved: SavedRun) -> None:
        """See `create_store` and `open_store`."""
        self.path, self.saved = path, saved
        self._connection, self._lock = connection, lock
        self.incarnation = 0
        self.keep_every = KEEP_EVERY
        self._digest = saved.specification.digest()
        self._contributors = json.dumps(sorted(saved.last_contributors)) if saved.round else ""

    def begin(self) -> None:
        """Raises the incarnation: whatever an earlier coordinator of this run still says is void.

        Raises:
            RunFileError: nothing can be stored.
        """
        with self._writing() as cursor:
            cursor.execute("UPDATE run SET incarnation = incarnation + 1")
            (self.incarnation,) = cursor.execute("SELECT incarnation FROM run").fetchone()

    def write(self, operations: Sequence[Operation]) -> None:
        """Stores everything in one transaction: all of it, or nothing.

        Raises:
            RunFileError: nothing was stored, as when the disk is full.
        """
        contributors = self._contributors
        try:
            with self._writing() as cursor:
                for operation in operations:
                    self._write(cursor, operation)
        except RunFileError:
            self._contributors = contributors
            raise

    def write_end(self, cause: FinishCause, message: str, rounds: int) -> None:
        """Stores that the run is over after so many rounds, and cannot go on.

        Raises:
            RunFileError: that cannot be stored.
        """
        with self._writing() as cursor:
            # The next one may have been stored while somebody stopped the run; nobody was told of it.
            cursor.execute("DELETE FROM rounds WHERE round >= ?", (rounds,))
            cursor.execute("UPDATE run SET finish_cause = ?, finish_message = ?", (cause.value, message))

    def close(self) -> None:
        """Ends the use of the file; another coordinator may take it."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        self._lock.close()

    def _write(self, cursor: sqlite3.Cursor, operation: Operation) -> None:
        match operation:
            case StoreRound(record=record):
                self._write_round(cursor, record)
            case StoreSpecification(specification=specification):
                self._digest = specification.digest()
                cursor.execute(
                    "UPDATE run SET specification = ?, specification_digest = ?",
                    (to_toml(specification), self._digest),
                )
            case StoreMember(session=member):
                cursor.execute(
                    "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        *(member.token, member.instance_id, json.dumps(member.agent_ids), member.reconnects),
                        *(member.holder, member.site_index),
                    ),
                )
                if member.site_index is not None:
                    seat = (member.holder, member.site_index, member.instance_id)
                    cursor.execute("INSERT OR REPLACE INTO seats VALUES (?, ?, ?)", seat)
                cursor.executemany(
                    "DELETE FROM departures WHERE agent = ?", [(agent,) for agent in member.agent_ids]
                )
            case DropMember(token=token, departures=departures):
                cursor.execute("DELETE FROM sessions WHERE token = ?", (token,))
                cursor.executemany(
                    "INSERT OR REPLACE INTO departures VALUES (?, ?, ?, ?)",
                    [(gone.agent_id, gone.round, gone.cause, gone.reconnects) for gone in departures],
                )

    def _write_round(self, cursor: sqlite3.Cursor, record: RoundRecord) -> None:
        report, number = record.report, record.report.closed_round
        contributors = _contributors(record.contributors, number)
        cursor.execute(
            "INSERT INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(number, time.time(), self._digest),
                *(None if contributors == self._contributors else contributors, record.weight, report.seconds),
                *(report.basis_movement, report.orthonormality_error),
                *(_names(report.departed_agent_ids), _names(report.absent_agent_ids)),
                *(_blob(record.move.basis), _blob(record.move.row_squares)),
            ),
        )
        self._contributors = contributors
        pruned = number - _NEWEST_BASES
        if pruned >= 0 and (pruned + 1) % self.keep_every:
            cursor.execute("UPDATE rounds SET basis = NULL, row_squares = NULL WHERE round = ?", (pruned,))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Cursor]:
        """One transaction, on the disk when it is left."""
        cursor = self._connection.cursor()
        try:
            cursor.execute("BEGIN IMMEDIATE")
            yield cursor
            cursor.execute("COMMIT")
        except sqlite3.Error as failure:
            with contextlib.suppress(sqlite3.Error):
                cursor.execute("ROLLBACK")
            raise RunFileError(
                f"cannot store the run in {self.path}: {failure}; what was stored before is untouched"
            ) from failure
        finally:
            cursor.close()


def create_store(path: Path, specification: RunSpecification, *, run_id: str) -> RunStore:
    """A new run, which must not have a file yet.

    Raises:
        RunFileError: there is a file, or none can be made.
    """
    lock = _locked(path)
    try:
        if path.exists():
            raise RunFileError(f"{path} holds a run already; name another folder")
        connection = _connect(path)
        with _storing(path):
            connection.execute("BEGIN IMMEDIATE")
            for statement in _TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
            values = (1, run_id, time.time(), to_toml(specification), specification.digest(), 0)
            connection.execute("INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)", values)
            connection.execute("COMMIT")
    except BaseException:
        lock.close()
        raise
    _sync_folder(path.parent)
    return RunStore(path, connection, lock, SavedRun(run_id, specification))


def open_store(path: Path) -> RunStore:
    """A run that was stored before, checked as a whole.

    Raises:
        RunFileError: it is damaged, of a newer version, over, served by another coordinator, or cannot be written.
            Nothing has been changed.
    """
    lock = _locked(path)
    try:
        state = read_state(path, check=True)
        if state.finish_cause is not None:
            raise RunFileError(
                f"the run in {path} is over after {state.rounds} rounds ({state.finish_message}); "
                "name another folder"
            )
        saved = read_saved(path)
        connection = _connect(path)
    except BaseException:
        lock.close()
        raise
    return RunStore(path, connection, lock, saved)


def _connect(path: Path) -> sqlite3.Connection:
    with _storing(path):
        connection = sqlite3.connect(
            path, isolation_level=None, timeout=_BUSY_SECONDS, check_same_thread=False, cached_statements=32
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection


@contextlib.contextmanager
def _storing(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as failure:
        raise RunFileError(
            f"cannot store a run in {path}: {failure}; check the disk and its permissions"
        ) from failure


def _locked(path: Path) -> IO[str]:
    """The lock of a store, which ends with the process however that goes."""
    name = path.with_name(f".{path.name}.lock")
    try:
        lock = name.open("a+", encoding="utf-8")
    except OSError as failure:
        raise RunFileError(f"cannot store a run in {path.parent}: {failure.strerror}; name another") from failure
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
    except OSError as failure:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise RunFileError(
            f"another coordinator (process {holder}) serves the run in {path.parent}; end it first"
        ) from failure
    return lock


def _sync_folder(folder: Path) -> None:
    """So that the file's name, too, survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _contributors(contributors: Mapping[str, int], number: int) -> str:
    """The names; where one's gradient was stale, all with the rounds of their gradients."""
    if all(of == number for of in contributors.values()):
        return json.dumps(sorted(contributors))
    return json.dumps(contributors, sort_keys=True)


def _names(names: Sequence[str]) -> str | None:
    return json.dumps(names) if names else None


def _blob(values: Float[np.ndarray, "..."] | None) -> bytes | None:
    return None if values is None else np.ascontiguousarray(values, dtype="<f8").tobytes()
