"""Stored runs for whoever reads them: what a run was, its rounds, and the bases that were kept."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cospan.core.specification import RunSpecification
from cospan.server.members import Departure, Seat, Session
from cospan.server.saved import SavedRun
from cospan.wire.errors import RunFileError
from cospan.wire.messages import AgentPhase, RoundReport, Stamp
from cospan.wire.spec_file import from_toml

SCHEMA = 1
"""Raised with every change that an older version would misread."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """What a stored run is.

    Attributes:
        run_id: its name.
        created: when, in seconds since 1970.
        specification: of the run.
        incarnation: how often a coordinator was started for it.
        rounds: how many are stored.
        stored: when the last of them was, in seconds since 1970; None before the first.
        finish_cause: why it is over; None while it can go on.
        finish_message: the same in a sentence.
    """

    run_id: str
    created: float
    specification: RunSpecification
    incarnation: int
    rounds: int
    stored: float | None
    finish_cause: str | None
    finish_message: str | None


def read_state(path: Path, *, check: bool = False) -> StoredState:
    """What the run in `path` is; with `check`, after every page of the file was looked at.

    Raises:
        RunFileError: it is missing, damaged, or of a newer version.
    """
    with _reading(path) as connection:
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
        if schema > SCHEMA:
            raise RunFileError(
                f"{path} has format {schema}, and this version of Cospan knows {SCHEMA}; use the newer version"
            )
        if check:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise _damaged(path, found)
        row = connection.execute(
            "SELECT run_id, created, specification, specification_digest, incarnation, finish_cause, finish_message"
            " FROM run"
        ).fetchone()
        if row is None:
            raise _damaged(path, "it holds no run")
        count, last, stored = connection.execute("SELECT count(*), max(round), max(stored) FROM rounds").fetchone()
    if count and count != last + 1:
        raise _damaged(path, f"it has {count} rounds, and the last is round {last}")
    run_id, created, text, digest, incarnation, cause, message = row
    specification = from_toml(text, name=f"the specification in {path}")
    if specification.digest() != digest:
        raise RunFileError(
            f"the specification in {path} is not the one that was stored; it was changed, or is of another version"
        )
    return StoredState(run_id, created, specification, incarnation, count, stored, cause, message)


def read_saved(path: Path) -> SavedRun:
    """All that a coordinator needs to go on with the run in `path`.

    Raises:
        RunFileError: it is missing, damaged, or of a newer version.
    """
    state = read_state(path)
    with _reading(path) as connection:
        counted, last_rounds, accepted = _counts(connection, state)
        basis, row_squares = None, None
        if state.rounds:
            basis, row_squares = _arrays(connection, path, state, state.rounds - 1)
        return SavedRun(
            run_id=state.run_id,
            specification=state.specification,
            round=state.rounds,
            basis=basis,
            row_squares=row_squares,
            sessions=tuple(_session(row) for row in connection.execute("SELECT * FROM sessions ORDER BY token")),
            seats={
                holder: Seat(index, instance)
                for holder, index, instance in connection.execute("SELECT * FROM seats")
            },
            departures=tuple(
                Departure(agent, number, cause, 0.0, reconnects)
                for agent, number, cause, reconnects in connection.execute("SELECT * FROM departures")
            ),
            last_contributors=_last_contributors(connection),
            accepted=accepted,
            rounds_counted=counted,
            last_rounds=last_rounds,
        )


def read_reports(path: Path) -> Iterator[RoundReport]:
    """The rounds of the run in `path`, oldest first, without their bases.

    Raises:
        RunFileError: the file is missing or damaged.
    """
    state = read_state(path)
    with _reading(path) as connection:
        contributors = 0
        rows = connection.execute(
            "SELECT round, seconds, contributors, departed, absent, basis_movement, orthonormality_error"
            " FROM rounds ORDER BY round"
        )
        for number, seconds, named, departed, absent, movement, error in rows:
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


def kept_rounds(path: Path) -> list[int]:
    """t of every basis B_t that the run in `path` has kept, the first included.

    Raises:
        RunFileError: the file is missing or damaged.
    """
    with _reading(path) as connection:
        rows = connection.execute("SELECT round FROM rounds WHERE basis IS NOT NULL ORDER BY round")
        return [0, *(number + 1 for (number,) in rows)]


def read_basis(path: Path, round_number: int) -> Float[np.ndarray, "d r"]:
    """B_t of the run in `path`.

    Raises:
        RunFileError: it was not kept, or the file is missing or damaged.
    """
    state = read_state(path)
    if round_number == 0:
        return state.specification.initial_basis()
    if not 0 < round_number <= state.rounds:
        raise RunFileError(f"round {round_number} is not one of the run in {path}, which has {state.rounds} rounds")
    with _reading(path) as connection:
        return _arrays(connection, path, state, round_number - 1)[0]


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise RunFileError(f"there is no stored run {path}")
    try:
        # Without a log beside it nobody writes; and on a read-only disk none of its files could be made.
        logged = path.with_name(f"{path.name}-wal").exists()
        options = "mode=ro" if logged else "mode=ro&immutable=1"
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?{options}", uri=True, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()
    except sqlite3.DatabaseError as failure:
        raise _damaged(path, str(failure)) from failure


def _damaged(path: Path, how: str) -> RunFileError:
    return RunFileError(
        f"{path} cannot be read as a stored run: {how}; it was left as it is: bring back a copy, or name another "
        "folder"
    )


def _session(row: tuple[str, str, str, int, str, int | None]) -> Session:
    token, instance_id, agents, reconnects, holder, site_index = row
    return Session(
        token=token,
        instance_id=instance_id,
        agent_ids=tuple(json.loads(agents)),
        stream=0,
        phase=AgentPhase.LOST,
        last_seen=0.0,
        reconnects=reconnects,
        holder=holder,
        site_index=site_index,
    )


def _arrays(
    connection: sqlite3.Connection, path: Path, state: StoredState, number: int
) -> tuple[Float[np.ndarray, "d r"], Float[np.ndarray, " d"] | None]:
    """B and what its step remembers, as round `number` left them."""
    spec = state.specification
    row = connection.execute("SELECT basis, row_squares FROM rounds WHERE round = ?", (number,)).fetchone()
    basis, row_squares = row or (None, None)
    if basis is None:
        raise RunFileError(
            f"{path} has not kept the basis of round {number + 1}; `cospan runs` tells which it has kept"
        )
    if len(basis) != 8 * spec.feature_dim * spec.rank:
        raise _damaged(path, f"the basis of round {number + 1} has {len(basis)} bytes")
    values = np.frombuffer(basis, dtype="<f8").reshape(spec.feature_dim, spec.rank)
    return values, None if row_squares is None else np.frombuffer(row_squares, dtype="<f8")


def _last_contributors(connection: sqlite3.Connection) -> frozenset[str]:
    row = connection.execute(
        "SELECT contributors FROM rounds WHERE contributors IS NOT NULL ORDER BY round DESC LIMIT 1"
    ).fetchone()
    return frozenset(json.loads(row[0])) if row else frozenset()


def _counts(
    connection: sqlite3.Connection, state: StoredState
) -> tuple[dict[str, int], dict[str, int], dict[int, frozenset[str]]]:
    """Of every agent: in how many rounds it counted, and the newest of them; and whose gradients of which round."""
    counted: dict[str, int] = {}
    last: dict[str, int] = {}
    accepted: dict[int, set[str]] = {}
    oldest = state.rounds - max(1, state.specification.max_staleness)
    rows = connection.execute(
        "SELECT round, contributors FROM rounds WHERE contributors IS NOT NULL ORDER BY round"
    ).fetchall()
    for (number, named), until in zip(rows, [*(row[0] for row in rows[1:]), state.rounds], strict=True):
        names = json.loads(named)
        for name in names:
            counted[name] = counted.get(name, 0) + until - number
            last[name] = until - 1
        for of in range(max(number, oldest), until):
            for name in names:
                own = names[name] if isinstance(names, dict) else of
                accepted.setdefault(own, set()).add(name)
    return counted, last, {number: frozenset(names) for number, names in accepted.items() if number >= oldest}
