"""The SQLite file of a run: its tables, and read access to a file of unknown origin.

A file from another person may hold an endless view, a trigger, a generated column, or pages that refer to
themselves. So nothing is read from a file that holds anything but these tables, and its size limits the time, the
number of rows and the length of a value.
"""

import contextlib
import functools
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cospan.wire.files.safe_files import check_regular

BUSY_SECONDS = 15.0
"""Longest wait for a file that another program has locked; `cospan run` and containers give a coordinator 20 s to
end."""
_LEAST_SECONDS, _SECONDS_PER_BYTE = 30.0, 1.0 / (1 << 20)
"""Limit on the time to read a file; reading takes a hundredth of it."""
_LEAST_ROW_BYTES = 4
_LEAST_LENGTH = 1 << 20
_STEPS_BETWEEN_CHECKS = 100_000
_INTERRUPT_SECONDS = 0.05
_BESIDE = ("-wal", "-shm", "-journal")

TABLES = """
CREATE TABLE run (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    run_id TEXT NOT NULL,
    created REAL NOT NULL,            -- seconds since 1970
    specification TEXT NOT NULL,      -- as spec.toml
    specification_digest TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    finish_cause TEXT,                -- NULL while the run can be resumed
    finish_message TEXT,
    seal INTEGER NOT NULL             -- of every row: CRC-32 of the JSON list of its other columns
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
    basis_sha256 TEXT NOT NULL,       -- of the next round's basis, also where that was not kept
    seal INTEGER NOT NULL
);
CREATE TABLE bases (
    round INTEGER PRIMARY KEY,        -- t of B_t
    basis BLOB NOT NULL,              -- float64, little-endian, C order
    head_covariance BLOB,             -- W_t, the same; NULL where the method has none
    seal INTEGER NOT NULL             -- CRC-32 of the two
);
CREATE TABLE step_memory (
    round INTEGER PRIMARY KEY,        -- from B_t on, until the next row
    numbers BLOB,                     -- what the basis step remembers: float64, little-endian; NULL for nothing
    seal INTEGER NOT NULL             -- CRC-32 of it
);
CREATE TABLE sessions (
    token TEXT PRIMARY KEY, instance_id TEXT NOT NULL, agents TEXT NOT NULL, reconnects INTEGER NOT NULL,
    site_claim_id TEXT NOT NULL, site_index INTEGER, seal INTEGER NOT NULL
);
CREATE TABLE site_claims (
    site_claim_id TEXT PRIMARY KEY, site_index INTEGER NOT NULL, instance_id TEXT NOT NULL, seal INTEGER NOT NULL
);
CREATE TABLE departures (
    agent TEXT PRIMARY KEY, round INTEGER NOT NULL, cause TEXT NOT NULL, reconnects INTEGER NOT NULL,
    seal INTEGER NOT NULL
);
"""


class UnknownTablesError(ValueError):
    """A file holds other tables than those of a run."""


class ReadingConnection(sqlite3.Connection):
    """A connection that reads one file, in bounded time.

    Attributes:
        path: of the file.
        most_rows: limit on the rows of a table, from the file's size.
    """

    path: Path
    most_rows: int = 0

    def check_tables(self) -> None:
        """Raises UnknownTablesError unless the file holds exactly the tables of a run."""
        expected = dict(_expected())
        for kind, name, sql in self.execute("SELECT type, name, sql FROM sqlite_master"):
            if expected.pop((kind, name), "") != _plain(sql):
                raise UnknownTablesError(f"it holds the {kind} {str(name)[:80]!r}, and a run has none, or another")
        if expected:
            _, name = next(iter(expected))
            raise UnknownTablesError(f"it lacks {name!r}")


@contextlib.contextmanager
def reading_connection(path: Path) -> Iterator[ReadingConnection]:
    """A read-only connection to a file that exists.

    Raises:
        NotAFileError: it, or a file that SQLite reads with it, is not a regular file.
        sqlite3.Error: it cannot be read, or not in time (`sqlite_errorname` is then SQLITE_INTERRUPT).
    """
    for suffix in ("", *_BESIDE):
        check_regular(path.with_name(path.name + suffix))
    # Without a write-ahead log no process writes, and on a read-only disk SQLite could not create its files.
    log = path.with_name(f"{path.name}-wal")
    options = "mode=ro" if log.exists() else "mode=ro&immutable=1"
    size = path.stat().st_size + (log.stat().st_size if log.exists() else 0)
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?{options}",
        uri=True,
        isolation_level=None,
        timeout=BUSY_SECONDS,
        factory=ReadingConnection,
    )
    try:
        connection.path = path
        connection.most_rows = size // _LEAST_ROW_BYTES
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(_LEAST_LENGTH, min(size, 2**31 - 1)))
        for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}")
        with _bounded(connection, BUSY_SECONDS + _LEAST_SECONDS + _SECONDS_PER_BYTE * size):
            yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def _bounded(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Interrupts the statements of a connection that run after this time.

    SQLite calls the progress handler between steps. A single step, as of counting rows, may be endless: only
    another thread can interrupt it.
    """
    deadline, done = time.monotonic() + seconds, threading.Event()

    def interrupt() -> None:
        if not done.wait(seconds):
            while not done.wait(_INTERRUPT_SECONDS):
                connection.interrupt()

    connection.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS_BETWEEN_CHECKS)
    watching = threading.Thread(target=interrupt, name="bounded-reading", daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()


@functools.cache
def _expected() -> dict[tuple[str, str], str]:
    """(kind, name) → statement of the tables of a run and their indices."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(TABLES)
        found = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    finally:
        connection.close()
    return {(kind, name): _plain(sql) for kind, name, sql in found}


def _plain(sql: object) -> str:
    """A statement without comments and line breaks; ours have no quoted text."""
    text = sql if isinstance(sql, str) else "made by SQLite" if sql is None else "no text"
    return re.sub(r"[ \t\n\f\r]+", " ", re.sub(r"--[^\n]*", "", text)).strip()
