"""Reads stored runs: their state, rounds and bases."""

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import initial_head_covariance
from cospan.core.specification import RunSpecification
from cospan.server.machine.collections.participation_counts import ParticipationCounts
from cospan.server.machine.sessions import Departure, Session, SiteClaim
from cospan.server.machine.snapshot import SavedRun
from cospan.server.storage.arrays import check_memory, read_memory, seal_of_arrays
from cospan.server.storage.schema import BUSY_SECONDS, ReadingConnection, reading_connection
from cospan.wire.errors import RunFileError
from cospan.wire.files.spec_file import from_toml
from cospan.wire.messages import AgentPhase, RecalledBasis, RecalledRounds, RoundReport, Stamp

SCHEMA = 2
"""Version of the format; increased with every change that another version would misread."""
APPLICATION = 0x436F7370
"""SQLite's `application_id` of a store: "Cosp"."""

_TABLES = ("run", "rounds", "sessions", "site_claims", "departures")
_ROUND, _STORED, _CONTRIBUTORS = 0, 1, 3
"""Columns of `rounds`."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """Summary of a stored run.

    Attributes:
        run_id: its name.
        created: seconds since 1970.
        specification: of the run.
        incarnation: number of coordinator processes that have served it.
        rounds: number of stored rounds.
        stored: time of the last one, in seconds since 1970; None before the first.
        agents: number of its contributors; None before the first.
        kept: t of every stored basis B_t, ascending from 0.
        finish_cause: why it is over; None while it can be resumed.
        finish_message: the same in a sentence.
    """

    run_id: str
    created: float
    specification: RunSpecification
    incarnation: int
    rounds: int
    stored: float | None
    agents: int | None
    kept: tuple[int, ...]
    finish_cause: str | None
    finish_message: str | None


@dataclass(frozen=True, eq=False, slots=True)
class KeptBasis:
    """A basis of a stored run.

    Attributes:
        state: of the run.
        round: t.
        basis: B_t, shape (d, r).
        head_covariance: W_t, shape (r, r); None where the method has none.
    """

    state: StoredState
    round: int
    basis: Float[np.ndarray, "d r"]
    head_covariance: Float[np.ndarray, "r r"] | None = None


def read_state(path: Path, *, check: bool = False) -> StoredState:
    """The state of the run in `path`; with `check`, after a check of every page and row.

    Raises:
        RunFileError: it is missing, damaged, of another version, or of another program.
    """
    with _reading(path) as connection:
        state = _state(connection)
        if check:
            _check(connection)
        return state


def read_saved(path: Path) -> SavedRun:
    """What a coordinator needs to resume the run in `path`.

    Raises:
        RunFileError: it is missing, damaged, or of another version.
    """
    with _reading(path) as connection:
        state = _state(connection)
        counted, last_rounds, accepted = _counts(connection, state)
        basis = _basis(connection, state, state.rounds) if state.rounds else None
        return SavedRun(
            run_id=state.run_id,
            specification=state.specification,
            round=state.rounds,
            basis=basis and basis.basis,
            head_covariance=basis and basis.head_covariance,
            step_memory=read_memory(connection, state.rounds),
            sessions=tuple(_session(row) for row in _rows(connection, "sessions ORDER BY token")),
            site_claims={
                site_claim_id: SiteClaim(index, instance)
                for site_claim_id, index, instance in _rows(connection, "site_claims")
            },
            departures=tuple(
                Departure(agent, number, cause, 0.0, reconnects)
                for agent, number, cause, reconnects in _rows(connection, "departures")
            ),
            last_contributors=frozenset(_last_contributors(connection)),
            accepted=accepted,
            rounds_counted=ParticipationCounts(counted, last_rounds),
        )


def read_reports(path: Path) -> Iterator[RoundReport]:
    """The rounds of the run in `path`, oldest first, without their bases.

    Raises:
        RunFileError: the file is missing or damaged.
    """
    with _reading(path) as connection:
        state = _state(connection)
        contributors = 0
        for expected, row in enumerate(_rows(connection, "rounds ORDER BY round")):
            number, _, _, named, _, seconds, movement, error, departed, absent, _ = row
            if number != expected:
                raise _damaged(path, f"round {number!r} stands in the place of round {expected}")
            contributors = contributors if named is None else len(json.loads(named))
            after = number + 1
            yield RoundReport(
                stamp=Stamp(state.run_id, state.incarnation, after, after),
                closed_round=number,
                seconds=seconds,
                contributors=contributors,
                departed_agent_ids=tuple(json.loads(departed or "[]")),
                basis_movement=movement,
                orthonormality_error=error,
                finished=after == state.specification.rounds,
                absent_agent_ids=tuple(json.loads(absent or "[]")),
            )


def read_basis(path: Path, round_number: int | None = None) -> KeptBasis:
    """B_t of the run in `path`; the last one by default.

    Raises:
        RunFileError: it was not kept, or the file is missing or damaged.
    """
    with _reading(path) as connection:
        state = _state(connection)
        number = state.rounds if round_number is None else round_number
        if number not in state.kept:
            raise RunFileError(
                f"{path.parent} has {_not_kept(state, number)}; it keeps those of {spans(state.kept)}"
            )
        return KeptBasis(state, *_basis(connection, state, number))


def read_past(path: Path, agents: Collection[str], first: int, before: int, *, most: int) -> RecalledRounds:
    """At most `most` rounds in [`first`, `before`) that counted the gradients of all `agents`, with their bases.

    Raises:
        RunFileError: the file is missing or damaged.
    """
    with _reading(path) as connection:
        state = _state(connection)
        learnt, partly = _learnt_rounds(connection, frozenset(agents), first, min(before, state.rounds))
        kept = set(state.kept)
        lost = len(partly) + sum(number not in kept for number in learnt)
        if lost:
            return RecalledRounds((), before, lost)
        bases = [_basis(connection, state, number) for number in learnt[:most]]
        return RecalledRounds(tuple(bases), learnt[most] if len(learnt) > most else before)


def _learnt_rounds(
    connection: ReadingConnection, agents: frozenset[str], first: int, before: int
) -> tuple[list[int], set[int]]:
    """Rounds whose gradients of all agents counted, then or later; and those of which only some agents' did."""
    found: dict[int, set[str]] = {}
    here: Collection[str] = ()
    named_before = "SELECT max(round) FROM rounds WHERE contributors IS NOT NULL AND round <= ?"
    (begin,) = connection.execute(named_before, (first,)).fetchone()
    for row in _rows(connection, "rounds WHERE round >= ? AND round < ? ORDER BY round", begin or 0, before):
        number, named = row[_ROUND], row[_CONTRIBUTORS]
        if named is not None:
            names = json.loads(named)
            stale = names if isinstance(names, dict) else {}
            here = agents.intersection(names)
        else:
            stale = {}
        for agent in here:
            found.setdefault(stale.get(agent, number), set()).add(agent)
    wanted = sorted(number for number in found if number >= first)
    partly = {number for number in wanted if len(found[number]) < len(agents)}
    return [number for number in wanted if number not in partly], partly


def spans(numbers: Sequence[int]) -> str:
    """Ascending numbers as text: consecutive ones as `first-last`, and an ellipsis in a long list."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1] = [found[-1][0], number]
        else:
            found.append([number])
    texts = ["-".join(map(str, span)) for span in found]
    return ", ".join(texts if len(texts) <= 8 else [*texts[:4], "…", *texts[-3:]])


def seal(values: Sequence[Any]) -> int:
    """The checksum of a row."""
    return zlib.crc32(json.dumps(values).encode())


def _not_kept(state: StoredState, number: int) -> str:
    if number > state.rounds:
        return f"no basis after {number} rounds, for {state.rounds} are done"
    return f"not kept the basis after {number} rounds"


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[ReadingConnection]:
    """A consistent view of the file, also while it is written."""
    try:
        if not path.is_file():
            raise RunFileError(f"there is no stored run {path}; name the folder of one, see `cospan runs`")
        with reading_connection(path) as connection:
            connection.execute("BEGIN")
            yield connection
    except sqlite3.OperationalError as failure:
        name = getattr(failure, "sqlite_errorname", "")  # missing if a text is not UTF-8
        if name.startswith("SQLITE_INTERRUPT"):
            raise _damaged(path, "to read it takes longer than its size allows") from failure
        if name.startswith("SQLITE_BUSY"):
            raise RunFileError(
                f"cannot read {path}: another program has had it locked for {BUSY_SECONDS:g} s; end that program"
            ) from failure
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_IOERR")):
            raise _unreadable(path, str(failure)) from failure
        raise _damaged(path, str(failure)) from failure
    except (sqlite3.Error, ValueError, KeyError, TypeError, RecursionError) as failure:
        raise _damaged(path, str(failure)) from failure
    except OSError as failure:
        raise _unreadable(path, failure.strerror or str(failure)) from failure


def _unreadable(path: Path, how: str) -> RunFileError:
    log = path.with_name(f"{path.name}-wal")
    what = f"check the disk and the permissions of {path.parent}"
    with contextlib.suppress(OSError):
        if log.exists():
            what = f"where the folder cannot be written to, copy {path.name} and {log.name} to one that can"
    return RunFileError(f"cannot read {path}: {how}; {what}")


def _damaged(path: Path, how: str) -> RunFileError:
    return RunFileError(
        f"{path} cannot be read as a stored run: {' '.join(how.split())}; it was left as it is: bring back a copy, "
        "or name another folder"
    )


def _state(connection: ReadingConnection) -> StoredState:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION:
        raise _damaged(connection.path, "it is of another program")
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if schema != SCHEMA:
        raise RunFileError(
            f"{connection.path} has format {schema}, and this version of Cospan knows {SCHEMA}; use the version "
            "that wrote it"
        )
    connection.check_tables()
    row = next(_rows(connection, "run"), None)
    if row is None:
        raise _damaged(connection.path, "it holds no run")
    _, run_id, created, text, digest, incarnation, cause, message = row
    count, last = connection.execute("SELECT count(*), max(round) FROM rounds").fetchone()
    if count and count != last + 1:
        raise _damaged(connection.path, f"it has {count} rounds, and the last is round {last}")
    stored = next((row[_STORED] for row in _rows(connection, "rounds WHERE round = ?", last)), None)
    kept = _ascending(connection.execute("SELECT round FROM bases ORDER BY round"))
    if count and count not in kept:
        raise _damaged(connection.path, f"the basis after its {count} rounds is missing")
    specification = from_toml(text, name=f"the specification in {connection.path}")
    if specification.digest() != digest:
        raise RunFileError(
            f"the specification in {connection.path} is of another version of Cospan; use that version"
        )
    return StoredState(
        run_id=run_id,
        created=created,
        specification=specification,
        incarnation=incarnation,
        rounds=count,
        stored=stored,
        agents=len(_last_contributors(connection)) if count else None,
        kept=(0, *kept),
        finish_cause=cause,
        finish_message=message,
    )


def _check(connection: ReadingConnection) -> None:
    """Checks every page and row.

    Raises:
        RunFileError: one is not as it was written.
    """
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise _damaged(connection.path, found)
    for table in _TABLES:
        for _ in _rows(connection, table):
            pass
    for number, *arrays, sealed in connection.execute("SELECT * FROM bases"):
        if seal_of_arrays(*arrays) != sealed:
            raise _damaged(connection.path, f"the basis after {number} rounds is not the one that was stored")
    for row in connection.execute("SELECT * FROM step_memory"):
        check_memory(*row)


def _rows(connection: ReadingConnection, what: str, *values: Any) -> Iterator[tuple[Any, ...]]:
    """The rows of a table without their seals; raises RunFileError if a seal is wrong."""
    for number, row in enumerate(connection.execute(f"SELECT * FROM {what}", values)):
        if number > connection.most_rows:
            raise _damaged(connection.path, f"{what.partition(' ')[0]} has more rows than the file has room for")
        if seal(row[:-1]) != row[-1]:
            raise _damaged(connection.path, f"a row of {what.partition(' ')[0]} is not the one that was stored")
        yield row[:-1]


def _ascending(rows: Iterable[tuple[Any, ...]]) -> tuple[int, ...]:
    """The rounds of rows. Raises ValueError if they do not ascend, as in pages that refer to themselves."""
    found: list[int] = []
    for (number,) in rows:
        if not isinstance(number, int) or number <= (found[-1] if found else 0):
            raise ValueError(f"round {number!r} stands in the wrong place")
        found.append(number)
    return tuple(found)


def _session(row: tuple[Any, ...]) -> Session:
    token, instance_id, agents, reconnects, site_claim_id, site_index = row
    return Session(
        token=token,
        instance_id=instance_id,
        agent_ids=tuple(json.loads(agents)),
        stream=0,
        phase=AgentPhase.LOST,
        last_seen=0.0,
        reconnects=reconnects,
        site_claim_id=site_claim_id,
        site_index=site_index,
    )


def _basis(connection: ReadingConnection, state: StoredState, number: int) -> RecalledBasis:
    """B_t and W_t, t = `number`, whose basis is kept; those of round 0 follow from the specification."""
    spec = state.specification
    if number == 0:
        return RecalledBasis(0, spec.initial_basis(), initial_head_covariance(spec.method, spec.rank))
    basis, covariance, sealed = connection.execute(
        "SELECT basis, head_covariance, seal FROM bases WHERE round = ?", (number,)
    ).fetchone()
    expected = 8 * spec.rank * spec.rank if spec.method.has_head_covariance else 0
    whole = (len(basis), len(covariance or b"")) == (8 * spec.feature_dim * spec.rank, expected)
    if not whole or seal_of_arrays(basis, covariance) != sealed:
        raise _damaged(connection.path, f"the basis after {number} rounds is not the one that was stored")
    return RecalledBasis(
        number,
        np.frombuffer(basis, dtype="<f8").reshape(spec.feature_dim, spec.rank),
        None if covariance is None else np.frombuffer(covariance, dtype="<f8").reshape(spec.rank, spec.rank),
    )


def _last_contributors(connection: ReadingConnection) -> Sequence[str]:
    named = "rounds WHERE contributors IS NOT NULL ORDER BY round DESC LIMIT 1"
    return next((list(json.loads(row[_CONTRIBUTORS])) for row in _rows(connection, named)), [])


def _counts(
    connection: ReadingConnection, state: StoredState
) -> tuple[dict[str, int], dict[str, int], dict[int, frozenset[str]]]:
    """Agent id → rounds that counted it, agent id → the newest of them, and recent round → agents counted in it."""
    counted: dict[str, int] = {}
    last: dict[str, int] = {}
    accepted: dict[int, set[str]] = {}
    oldest = state.rounds - max(1, state.specification.max_staleness)
    named = "rounds WHERE contributors IS NOT NULL ORDER BY round"
    rows = [(row[_ROUND], row[_CONTRIBUTORS]) for row in _rows(connection, named)]
    ends = [*(row[_ROUND] for row in rows), state.rounds][1:]
    for (number, text), until in zip(rows, ends, strict=True):
        names = json.loads(text)
        for name in names:
            counted[name] = counted.get(name, 0) + until - number
            last[name] = until - 1
        for of in range(max(number, oldest), until):
            for name in names:
                own = names[name] if isinstance(names, dict) else of
                accepted.setdefault(own, set()).add(name)
    return counted, last, {number: frozenset(names) for number, names in accepted.items() if number >= oldest}
