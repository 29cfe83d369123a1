"""Writes the store of a run: one SQLite file, one transaction for every round.

The file is `coordinator.sqlite` of a run folder. One coordinator at a time owns a `RunStore`, and holds its lock;
`cospan.server.storage.reader` needs no lock. A file that is damaged, of another version, or on a read-only or full
disk is rejected unchanged. SQLite does not detect a flipped bit in a value, so every row has a seal: a checksum of
its other columns.
"""

import contextlib
import json
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeAlias

from cospan.core.specification import RunSpecification, basis_digest
from cospan.server.machine import events
from cospan.server.machine.snapshot import SavedRun
from cospan.server.storage.arrays import blob, drop_memories, seal_of_arrays, write_memory
from cospan.server.storage.lock import StoreLock
from cospan.server.storage.reader import APPLICATION, SCHEMA, read_saved, read_state, seal
from cospan.server.storage.schema import BUSY_SECONDS, TABLES
from cospan.wire.errors import RunFileError
from cospan.wire.files.spec_file import to_toml
from cospan.wire.messages import FinishCause

log = logging.getLogger(__name__)

Operation: TypeAlias = events.StoreRound | events.StoreSpecification | events.StoreMember | events.DropMember
"""What can be stored."""

KEEP_EVERY = 100
"""Default interval of rounds between checkpoints."""
_NEWEST_BASES = 3
"""Number of newest bases that are always kept."""
_TRY_SECONDS = 0.5
"""Time that SQLite itself waits for a locked file before the wait is logged."""
_MOST_WAITING_BYTES = 256 << 20
"""Limit on the bases kept for agents whose files lack their rounds."""
_PAGE, _LARGE_PAGE = 4096, 65_536
_LARGE_ARRAY = 1 << 17
"""Bytes; from this size on large pages save a quarter to a half of a commit's cost."""


class RunStore:
    """The store of a run, for its coordinator. One thread at a time may call its methods."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        lock: StoreLock,
        saved: SavedRun,
        *,
        checkpoint_interval: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """See `create_store` and `open_store`."""
        self.path, self.saved = path, saved
        self._connection, self._lock = connection, lock
        self.incarnation = 0
        self._checkpoint_interval = checkpoint_interval
        self._digest = saved.specification.digest()
        self._clock, self._warned = clock, False
        self.needed_from: Callable[[], int | None] = lambda: None
        """Gives the oldest round whose basis agents may request; called by the writing thread."""
        self._pruned = 0
        self._memory = saved.step_memory
        """What the step remembers by the file's newest row, so that only a change is written."""
        self._names: Set[str] | None = None
        self._contributors = ""  # so that the first round stored here names them

    def begin(self) -> None:
        """Increases the incarnation, which invalidates messages of earlier coordinators.

        Raises:
            RunFileError: it cannot be stored.
        """
        with self._writing() as cursor:
            (incarnation,) = cursor.execute("SELECT incarnation FROM run").fetchone()
            _change_run(cursor, incarnation=incarnation + 1)
        self.incarnation = incarnation + 1

    def write(self, operations: Sequence[Operation]) -> None:
        """Stores all operations in one transaction.

        Raises:
            RunFileError: nothing was stored, as when the disk is full.
        """
        before = self._contributors, self._names, self._digest, self._pruned, self._memory
        try:
            with self._writing() as cursor:
                rows, records = list[tuple[Any, ...]](), list[events.RoundRecord]()
                for operation in operations:
                    if isinstance(operation, events.StoreRound):
                        rows.append(self._row(operation.record))
                        records.append(operation.record)
                    else:
                        self._write(cursor, operation)
                if records:
                    marks = ", ".join("?" * len(rows[0]))
                    cursor.executemany(f"INSERT INTO rounds VALUES ({marks})", rows)
                    self._write_bases(cursor, records)
        except BaseException:
            self._contributors, self._names, self._digest, self._pruned, self._memory = before
            raise

    def write_end(self, cause: FinishCause, message: str, rounds: int) -> None:
        """Stores that the run is over after `rounds` rounds, and cannot be resumed.

        Raises:
            RunFileError: it cannot be stored.
        """
        with self._writing() as cursor:
            _take_back(cursor, rounds)
            _change_run(cursor, finish_cause=cause.value, finish_message=message)

    def take_back(self, rounds: int) -> None:
        """Keeps `rounds` rounds: a later one may have been stored without being announced.

        Raises:
            RunFileError: it cannot be stored.
        """
        with self._writing() as cursor:
            _take_back(cursor, rounds)

    def close(self) -> None:
        """Closes the file, and releases the lock."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        self._lock.close()

    def _write(
        self, cursor: sqlite3.Cursor, operation: events.StoreSpecification | events.StoreMember | events.DropMember
    ) -> None:
        match operation:
            case events.StoreSpecification(specification=specification):
                self._digest = specification.digest()
                _change_run(cursor, specification=to_toml(specification), specification_digest=self._digest)
            case events.StoreMember(session=member):
                agents = json.dumps(member.agent_ids)
                values = (member.token, member.instance_id, agents, member.reconnects, member.site_claim_id)
                _put(cursor, "sessions", *values, member.site_index)
                if member.site_index is not None:
                    _put(cursor, "site_claims", member.site_claim_id, member.site_index, member.instance_id)
                cursor.executemany(
                    "DELETE FROM departures WHERE agent = ?", [(agent,) for agent in member.agent_ids]
                )
            case events.DropMember(token=token, departures=departures):
                cursor.execute("DELETE FROM sessions WHERE token = ?", (token,))
                for gone in departures:
                    _put(cursor, "departures", gone.agent_id, gone.round, gone.cause, gone.reconnects)

    def _write_bases(self, cursor: sqlite3.Cursor, records: Sequence[events.RoundRecord]) -> None:
        """Stores the bases of consecutive rounds; those that would be pruned at once are left out."""
        last = records[-1].closed_round + 1
        pruned = max(self._pruned, self._prunable(last, records[-1].move.basis.nbytes))
        for record in records:
            number = record.closed_round + 1
            if number > pruned or number % self._checkpoint_interval == 0:
                arrays = blob(record.move.basis), blob(record.move.head_covariance)
                cursor.execute("INSERT INTO bases VALUES (?, ?, ?, ?)", (number, *arrays, seal_of_arrays(*arrays)))
                if record.move.step_memory is not self._memory:
                    self._memory = record.move.step_memory
                    write_memory(cursor, number, self._memory)
        cursor.execute(
            "DELETE FROM bases WHERE round > ? AND round <= ? AND round % ? <> 0",
            (self._pruned, pruned, self._checkpoint_interval),
        )
        drop_memories(cursor, self._pruned, pruned)
        self._pruned = pruned

    def _prunable(self, last: int, basis_bytes: int) -> int:
        """The round up to which no process needs bases, when `last` is the newest."""
        pruned, needed = last - _NEWEST_BASES, self.needed_from()
        if needed is None:
            return pruned
        return min(pruned, max(needed - 1, last - _MOST_WAITING_BYTES // basis_bytes))

    def _row(self, record: events.RoundRecord) -> tuple[Any, ...]:
        """A row of `rounds`, with its seal."""
        report = record.report
        fresh = _fresh(record.contributors, record.closed_round)
        known = fresh is not None and fresh == self._names  # the usual case; to encode thousands takes time
        contributors = self._contributors if known else _contributors(record.contributors, fresh=fresh is not None)
        values = (
            *(record.closed_round, time.time(), self._digest),
            *(None if contributors == self._contributors else contributors, _real(record.weight)),
            *(_real(report.seconds), _real(report.basis_movement), _real(report.orthonormality_error)),
            *(_names(report.departed_agent_ids), _names(report.absent_agent_ids)),
            basis_digest(record.move.basis),
        )
        self._contributors, self._names = contributors, fresh
        return (*values, seal(values))

    def _begin(self, cursor: sqlite3.Cursor) -> None:
        """Begins a transaction, after a wait if another program has locked the file."""
        begun = self._clock()
        while True:
            try:
                cursor.execute("BEGIN IMMEDIATE")
                self._warned = False
                return
            except sqlite3.OperationalError as failure:
                waited = self._clock() - begun
                if not _is_locked(failure) or waited >= BUSY_SECONDS:
                    raise
                if not self._warned:
                    log.warning("another program has locked %s; rounds wait up to %g s", self.path, BUSY_SECONDS)
                self._warned = True

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Cursor]:
        """One transaction, which is durable when the context ends."""
        cursor = self._connection.cursor()
        try:
            self._begin(cursor)
            yield cursor
            cursor.execute("COMMIT")
        except BaseException as failure:
            with contextlib.suppress(sqlite3.Error):
                cursor.execute("ROLLBACK")
            if not isinstance(failure, sqlite3.Error):
                raise
            why, remedy = str(failure), "check the disk"
            if _is_locked(failure):
                why = f"another program has had it locked for {BUSY_SECONDS:g} s"
                remedy = "end that program"
            raise RunFileError(
                f"cannot store the run in {self.path}: {why}; what was stored before is untouched: {remedy}, and "
                "start the coordinator again to resume the run"
            ) from failure
        finally:
            cursor.close()


def create_store(
    path: Path, specification: RunSpecification, *, run_id: str, checkpoint_interval: int = KEEP_EVERY
) -> RunStore:
    """Creates the store of a new run, whole or not at all.

    Args:
        path: of the file, which must not exist.
        specification: of the run.
        run_id: its name.
        checkpoint_interval: every basis whose round is a multiple of it is kept.

    Raises:
        RunFileError: the file exists, or cannot be created.
    """
    lock = StoreLock(path)
    if path.exists():
        lock.close()
        raise RunFileError(f"{path} holds a run already; name another folder")
    try:
        with _storing(path):
            _make_file(path, run_id, specification)
            connection = _connect(path)
    except BaseException:
        for name in (path, *_fresh_files(path)):
            with contextlib.suppress(OSError):
                name.unlink()
        lock.remove()
        raise
    return RunStore(
        path, connection, lock, SavedRun(run_id, specification), checkpoint_interval=checkpoint_interval
    )


def open_store(path: Path, *, checkpoint_interval: int = KEEP_EVERY, reopen: bool = False) -> RunStore:
    """Opens the store of a run to resume it, after a check of the whole file.

    Args:
        path: of the file.
        checkpoint_interval: every basis whose round is a multiple of it is kept.
        reopen: whether to remove the last round of a run that has done all its rounds, so that agents that were
            killed before they had written their files can repeat it.

    Raises:
        RunFileError: it is damaged, of another version, over, served by another coordinator, or cannot be written.
            Nothing has been changed.
    """
    lock = StoreLock(path)
    try:
        state = read_state(path, check=True)
        if reopen and state.finish_cause == FinishCause.ROUNDS_REACHED.value and state.rounds:
            with _storing(path):
                _reopen(path, state.rounds - 1)
            state = read_state(path)
        if state.finish_cause is not None:
            raise RunFileError(
                f"the run in {path} is over after {state.rounds} rounds ({state.finish_message}); "
                "name another folder"
            )
        saved = read_saved(path)
        with _storing(path):
            _keep_to_owner(path)
            connection = _connect(path)
    except BaseException:
        lock.close()
        raise
    return RunStore(path, connection, lock, saved, checkpoint_interval=checkpoint_interval)


def _reopen(path: Path, rounds: int) -> None:
    """Keeps `rounds` rounds and the basis after them, and removes the end of the run."""
    connection = _connect(path)
    try:
        cursor = connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        _take_back(cursor, rounds)
        _change_run(cursor, finish_cause=None, finish_message=None)
        cursor.execute("COMMIT")
    finally:
        connection.close()


def _take_back(cursor: sqlite3.Cursor, rounds: int) -> None:
    cursor.execute("DELETE FROM rounds WHERE round >= ?", (rounds,))
    cursor.execute("DELETE FROM bases WHERE round > ?", (rounds,))
    cursor.execute("DELETE FROM step_memory WHERE round > ?", (rounds,))


def _fresh_files(path: Path) -> tuple[Path, Path]:
    """The name of a file until it is complete, and of its rollback journal."""
    return path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.new-journal")


def _make_file(path: Path, run_id: str, specification: RunSpecification) -> None:
    fresh = _fresh_files(path)[0]
    for name in _fresh_files(path):
        name.unlink(missing_ok=True)
    # SQLite gives its other files the same mode.
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(fresh, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA page_size = {_page_bytes(specification)}")
        connection.execute("BEGIN IMMEDIATE")
        for statement in TABLES.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        cursor = connection.cursor()
        values = (1, run_id, time.time(), to_toml(specification), specification.digest(), 0, None, None)
        _put(cursor, "run", *values)
        cursor.execute("COMMIT")
    finally:
        connection.close()
    fresh.rename(path)
    _sync_folder(path.parent)


def _page_bytes(specification: RunSpecification) -> int:
    """Large arrays take large pages, because SQLite writes, checks and frees page by page."""
    numbers = max(specification.feature_dim * specification.rank, specification.pooled_length)
    return _LARGE_PAGE if 8 * numbers >= _LARGE_ARRAY else _PAGE


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False, cached_statements=32
    )
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA busy_timeout = {int(1000 * _TRY_SECONDS)}")
    except BaseException:
        connection.close()
        raise
    return connection


def _keep_to_owner(path: Path) -> None:
    """Removes other users' permissions on a file that an earlier version has created."""
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        with contextlib.suppress(OSError):  # it does not exist, or belongs to another user
            name.chmod(stat.S_IMODE(name.stat().st_mode) & 0o700)


def _is_locked(failure: BaseException) -> bool:
    return getattr(failure, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


@contextlib.contextmanager
def _storing(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as failure:
        raise RunFileError(
            f"cannot store a run in {path}: {failure}; check the disk and its permissions"
        ) from failure


def _put(cursor: sqlite3.Cursor, table: str, *values: Any) -> None:
    """Inserts or replaces a row, with its seal."""
    marks = ", ".join("?" * (len(values) + 1))
    cursor.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", (*values, seal(values)))


def _change_run(cursor: sqlite3.Cursor, **changes: Any) -> None:
    """Changes columns of the one row of `run`."""
    cursor.execute("SELECT * FROM run")
    columns = [column[0] for column in cursor.description]
    row = dict(zip(columns, cursor.fetchone(), strict=True)) | changes
    del row["seal"]
    _put(cursor, "run", *row.values())


def _real(value: float) -> float:
    """The value as SQLite returns it: without −0."""
    return float(value) + 0.0


def _sync_folder(folder: Path) -> None:
    """Makes the file's name durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fresh(contributors: Mapping[str, int], number: int) -> Set[str] | None:
    """The names if all their gradients are of round `number`, else None."""
    if isinstance(contributors, events.SameRound):
        return contributors.names if contributors.round == number else None
    return contributors.keys() if all(of == number for of in contributors.values()) else None


def _contributors(contributors: Mapping[str, int], *, fresh: bool) -> str:
    """JSON of the names; with the rounds of their gradients unless all are fresh."""
    return json.dumps(sorted(contributors)) if fresh else json.dumps(contributors, sort_keys=True)


def _names(names: Sequence[str]) -> str | None:
    return json.dumps(names) if names else None
