"""What is stored with a basis: the head covariance, and the memory of the step."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from runs import R
from stored import NAME, basis_after, change, round_of, rows, served
from values import same

from cospan.core.method import Method
from cospan.core.specification import basis_digest
from cospan.server.storage import writer
from cospan.server.storage.reader import read_basis, read_past, read_saved, read_state
from cospan.server.storage.writer import open_store
from cospan.wire.errors import RunFileError


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
