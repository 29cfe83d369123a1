"""The lock of a stored run: one coordinator at a time holds it, and any process can see which."""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from cospan.wire.errors import RunFileError

STORE = "coordinator.sqlite"
"""The stored run, in its folder. Its name is here, for agents import none of what reads and writes it."""
_WAIT_SECONDS = 1.0
"""Longest wait for a lock: a killed process holds it for a moment, one that checks it even shorter."""
_TRY_SECONDS = 0.02
_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""For folders of other users: follow no link to a foreign file, and do not block on a pipe."""
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)


class FileLock:
    """A lock that is held until it is closed, or until every process that holds it has ended."""

    def __init__(self, path: Path, who: Callable[[str], str], seconds: float | None = None) -> None:
        """Takes the lock on a file, which is created if it is missing.

        Args:
            path: of the file.
            who: gives the error message; its argument is what the lock holder has written into the file.
            seconds: longest wait for the lock; one second by default.

        Raises:
            RunFileError: another process holds it.
            OSError: the file cannot be created.
        """
        self._path = path
        deadline = time.monotonic() + (_WAIT_SECONDS if seconds is None else seconds)
        while (descriptor := self._try()) is None:
            if time.monotonic() > deadline:
                raise RunFileError(who(holder_of_lock(path) or "unknown"))
            time.sleep(_TRY_SECONDS)
        self._descriptor: int | None = descriptor

    @property
    def descriptor(self) -> int:
        """Of the open file; a child process that inherits it holds the lock as well."""
        assert self._descriptor is not None
        return self._descriptor

    def say(self, text: str) -> None:
        """Writes who holds the lock into the file, for people; ignores a full disk."""
        with contextlib.suppress(OSError):
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, f"{text}\n".encode(), 0)

    def close(self) -> None:
        """Releases the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Removes the file, and releases the lock."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
        self.close()

    def _try(self) -> int | None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | _SAFELY, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held, named = os.fstat(descriptor), self._path.stat()
        except OSError as failure:
            os.close(descriptor)
            if failure.errno in _TAKEN or isinstance(failure, FileNotFoundError):
                return None
            raise
        if (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino):  # the former lock holder has removed it
            os.close(descriptor)
            return None
        return descriptor


class StoreLock(FileLock):
    """The lock of a coordinator."""

    def __init__(self, store: Path) -> None:
        """Takes the lock of the run in `store`.

        Raises:
            RunFileError: another coordinator holds it, or the folder is not writable.
        """

        def refusal(process: str) -> str:
            return f"another coordinator (process {process}) serves the run in {store.parent}; end it first"

        try:
            super().__init__(lock_of(store), refusal)
        except OSError as failure:
            raise RunFileError(
                f"cannot store a run in {store.parent}: {failure.strerror}; name another folder"
            ) from failure
        self.say(str(os.getpid()))


def lock_of(store: Path) -> Path:
    """The lock file of a store."""
    return store.with_name(f".{store.name}.lock")


def holder_of(store: Path) -> str | None:
    """The number of the process that serves the run in `store`, or "unknown"; None if there is none."""
    return holder_of_lock(lock_of(store))


def holder_of_lock(path: Path) -> str | None:
    """What the process that holds the lock on a file has written into it, or "unknown"; None if none holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _SAFELY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as failure:
        taken = failure.errno in _TAKEN
        return (os.pread(descriptor, 128, 0).decode("ascii", "replace").strip() or "unknown") if taken else None
    finally:
        os.close(descriptor)
    return None
