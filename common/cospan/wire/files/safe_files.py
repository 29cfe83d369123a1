"""Files that are written whole or not at all, and files of others, which are read in bounded time and memory."""

import contextlib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_TOML_BYTES = 1 << 16
"""Of a specification or of settings, which have some kilobytes."""
MAX_TEXT_BYTES = 1 << 20
"""Of a certificate, a key, a token."""
MAX_RESULT_BYTES = 1 << 28
"""Of `result.json`: some 300 bytes for each agent."""
MAX_ROUNDS_BYTES = 1 << 30
"""Of `rounds.csv`: some 100 bytes for each round."""


class NotAFileError(OSError):
    """What is there is a folder, a pipe, a socket or a device; or it is larger than allowed."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.strerror = what


@contextlib.contextmanager
def writing_whole(path: Path, *, mode: int = 0o666, durable: bool = True) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block has ended without an error, and is removed else.

    Args:
        path: of the file. Its temporary name beside it is `.<name>.<letters>.tmp`.
        mode: the permissions that it has; the user's umask takes its bits away.
        durable: whether to wait for the disk.

    Raises:
        NotAFileError: there is a folder, a pipe, a socket or a device, which a file must not take the place of.
        OSError: it cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        if not stat.S_ISLNK(status.st_mode):
            _check_regular(status)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def reading(path: Path, most_bytes: int | None) -> Iterator[BinaryIO]:
    """A regular file, opened to be read. A pipe without a writer does not hold this up, and a device gives nothing.

    Args:
        path: of the file.
        most_bytes: that it may have; None where the reader has a bound of its own.

    Raises:
        NotAFileError: it is no regular file, or has more than `most_bytes` bytes.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        _check_regular(status)
        if most_bytes is not None and status.st_size > most_bytes:
            raise NotAFileError(f"it has {status.st_size} bytes, and at most {most_bytes} are read")
    except BaseException:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        yield file


def check_regular(path: Path) -> None:
    """Does nothing where there is no such file.

    Raises:
        NotAFileError: it is something else than a regular file, or a link to one.
        OSError: that cannot be seen.
    """
    with contextlib.suppress(FileNotFoundError):
        _check_regular(path.stat())


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotAFileError(f"it is {_kind(status.st_mode)}, not a file")


def read_bytes(path: Path, most_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        NotAFileError: it is no regular file, or is larger than `most_bytes`.
        OSError: it cannot be read.
    """
    with reading(path, most_bytes) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:  # it has grown
        raise NotAFileError(f"it has more than {most_bytes} bytes, which are the most that are read")
    return content


def read_text(path: Path, most_bytes: int = MAX_TEXT_BYTES) -> str:
    """The text of a regular file in UTF-8, without the byte-order mark that editors on Windows put before it.

    Raises:
        NotAFileError: it is no regular file, or is larger than `most_bytes`.
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    content = read_bytes(path, most_bytes)
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read()


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for test, name in kinds if test(mode)), "something else")
