"""The lock of a stored run."""

import os
from pathlib import Path

import pytest
from runs import specification
from stored import NAME, refused, round_of, served

from cospan.server.storage import lock
from cospan.server.storage.writer import create_store, open_store
from cospan.wire.errors import RunFileError


def test_two_coordinators_of_one_run(tmp_path: Path) -> None:
    with served(tmp_path / NAME) as store:
        store.write([round_of(0)])
        refused(
            tmp_path / NAME, rf"another coordinator \(process {os.getpid()}\) serves the run in .*; end it first"
        )
        with pytest.raises(RunFileError, match="another coordinator"):
            create_store(tmp_path / NAME, specification(), run_id="another")
        assert lock.holder_of(store.path) == str(os.getpid())
        store.write([round_of(1)])
    assert lock.holder_of(tmp_path / NAME) is None
    open_store(tmp_path / NAME).close()


def test_a_lock_that_is_given_back_in_time_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a process that is just being killed, or of a reader."""
    monkeypatch.setattr(lock, "_WAIT_SECONDS", 20.0)
    first = lock.StoreLock(tmp_path / NAME)
    tries: list[int | None] = []
    taking = lock.StoreLock._try

    def counted(self: lock.StoreLock) -> int | None:
        tries.append(taking(self))
        first.close()
        return tries[-1]

    monkeypatch.setattr(lock.StoreLock, "_try", counted)
    lock.StoreLock(tmp_path / NAME).close()
    assert [descriptor is None for descriptor in tries] == [True, False]


def test_a_lock_whose_file_was_removed_is_none(tmp_path: Path) -> None:
    first = lock.StoreLock(tmp_path / NAME)
    first.remove()
    second = lock.StoreLock(tmp_path / NAME)
    with pytest.raises(RunFileError, match="another coordinator"):
        lock.StoreLock(tmp_path / NAME)
    second.close()
    second.close()


def test_only_a_lock_that_is_held_speaks_of_another_coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    with pytest.raises(
        RunFileError, match=r"cannot store a run in .*: Operation not supported; name another folder"
    ):
        lock.StoreLock(tmp_path / NAME)
