"""The lock of a stored run: one coordinator at a time, and anybody may see whether one has it."""

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

from cospan.wire.errors import RunFileError

_WAIT_SECONDS = 1.0
"""So long a lock is waited for: a process that is killed holds it for a moment, one that looks even shorter."""
_TRY_SECONDS = 0.02
_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""In a folder of others: a link might name a file that is not theirs, and a pipe would be waited for."""
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)


class StoreLock:
    """A lock that is held until it is closed, or until the process ends, however that goes."""

    def __init__(self, store: Path) -> None:
        """Takes the lock of the run in `store`.

        Raises:
            RunFileError: another coordinator has it, or the folder cannot be written to.
        """
        self._path = lock_of(store)
        deadline = time.monotonic() + _WAIT_SECONDS
        try:
            while (descriptor := self._try()) is None:
                if time.monotonic() > deadline:
                    holder = holder_of(store) or "unknown"
                    raise RunFileError(
                        f"another coordinator (process {holder}) serves the run in {store.parent}; end it first"
                    )
                time.sleep(_TRY_SECONDS)
        except OSError as failure:
            raise RunFileError(
                f"cannot store a run in {store.parent}: {failure.strerror}; name another folder"
            ) from failure
        self._descriptor: int | None = descriptor
        with contextlib.suppress(OSError):  # a full disk; only people read it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Lets another coordinator have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Removes the file, where nothing came of the run, and lets go of it."""
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
        if (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino):  # it was removed by whoever had it before
            os.close(descriptor)
            return None
        return descriptor


def lock_of(store: Path) -> Path:
    """The file whose lock goes with a store."""
    return store.with_name(f".{store.name}.lock")


def holder_of(store: Path) -> str | None:
    """The number of the process that serves the run in `store`, or "unknown"; None where nobody does."""
    try:
        descriptor = os.open(lock_of(store), os.O_RDONLY | _SAFELY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as failure:
        taken = failure.errno in _TAKEN
        return (os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown") if taken else None
    finally:
        os.close(descriptor)
    return None
