"""What tests of stored runs share: a run that is stored round by round, and what a folder held before a refusal."""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import D, R, specification

from cospan.core.aggregation.basis_update import BasisMove
from cospan.server.machine.events import RoundRecord, StoreRound
from cospan.server.machine.sessions import Session
from cospan.server.storage.writer import RunStore, create_store, open_store
from cospan.wire.errors import RunFileError
from cospan.wire.messages import AgentPhase, Stamp

NAME = "coordinator.sqlite"
RUN_ID = "0123456789abcdef"


def basis_after(rounds: int, feature_dim: int = D, rank: int = R) -> np.ndarray:
    """B_t of a run that only these tests know."""
    return np.linalg.qr(np.random.default_rng(rounds).standard_normal((feature_dim, rank)))[0]


def round_of(number: int, contributors: Mapping[str, int] | None = None, **changes: Any) -> StoreRound:
    """A round that has closed, with the agents a and b unless others are named."""
    named = {"a": number, "b": number} if contributors is None else contributors
    after = number + 1
    basis = changes.pop("basis", basis_after(after))
    move = BasisMove(
        basis_after(number, *basis.shape),
        basis,
        changes.pop("step_memory", None),
        head_covariance=changes.pop("head_covariance", None),
    )
    values: dict[str, Any] = {
        "stamp": Stamp(RUN_ID, 1, after, after),
        "closed": 1.0 + number,
        "seconds": 0.25 + number,
    }
    record = RoundRecord(contributors=named, weight=float(len(named)), move=move, **(values | changes))
    return StoreRound(record)


def stored_run(folder: Path, rounds: int, *, checkpoint_interval: int = 100, **changes: Any) -> Path:
    """A stopped run with that many rounds, which can be resumed; its file."""
    path = folder / NAME
    with served(path, checkpoint_interval=checkpoint_interval, **changes) as store:
        for number in range(rounds):
            store.write([round_of(number)])
    return path


@contextlib.contextmanager
def served(path: Path, *, checkpoint_interval: int = 100, **changes: Any) -> Iterator[RunStore]:
    """A new run, which its coordinator has begun to store."""
    store = create_store(
        path, specification(rounds=0, **changes), run_id=RUN_ID, checkpoint_interval=checkpoint_interval
    )
    try:
        store.begin()
        yield store
    finally:
        store.close()


def contents(folder: Path) -> dict[str, bytes]:
    """What a folder holds, but for the lock, which names the last process that held it."""
    return {
        entry.name: entry.read_bytes()
        for entry in folder.iterdir()
        if entry.is_file() and not entry.name.endswith(".lock")
    }


@contextlib.contextmanager
def read_only_folder() -> Iterator[Path]:
    """A folder that can be filled, and is read-only once its mode is 0o555, also for the superuser.

    The superuser may write anywhere, so for the time of the test the process acts as another user.
    """
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if user == 0:
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


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


def refused(path: Path, text: str) -> None:
    before = contents(path.parent)
    with pytest.raises(RunFileError, match=text) as refusal:
        open_store(path)
    assert "\n" not in str(refusal.value)
    assert str(path.parent) in str(refusal.value)
    assert contents(path.parent) == before


def change(path: Path, statement: str) -> None:
    """What a careless hand, or a failing disk, may do to a file: without its seals."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()
