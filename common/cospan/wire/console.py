"""Output for people: what cannot be written is dropped, and the work continues.

A closed pipe, a full disk or a terminal that is gone must never decide over a run. `say` is for single lines;
`drop_unwritable` protects everything else that this process prints: a workload's lines, progress bars, warnings.
"""

import contextlib
import io
import os
import sys
from typing import Any

from cospan.wire.text import MAX_RECORD, printable


def say(text: str, *, error: bool = True, start: str = "", end: str = "\n") -> None:
    """Writes a line to standard error, or to standard output, or drops it where that fails.

    Peers and workloads choose parts of what is written, so it holds nothing that a terminal would obey.

    Args:
        text: what to write.
        error: whether it goes to standard error; else to standard output.
        start: what comes before the text, as it is.
        end: what follows it.
    """
    stream = sys.stderr if error else sys.stdout
    with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
        print(start + printable(text, MAX_RECORD), end=end, file=stream, flush=True)


def open_standard_streams() -> None:
    """Opens /dev/null as standard input, output or error where the caller has closed it, as with `>&-`.

    Otherwise the next file or socket that is opened gets the number, and lines for people are written into it.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:  # the system gives the lowest number that is free
        os.set_inheritable(descriptor, True)
        descriptor = os.dup(descriptor)
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = dropping_stream(1)
    if sys.stderr is None:
        sys.stderr = dropping_stream(2)


def drop_unwritable() -> None:
    """Lets this process drop what it cannot write to standard output or error, from now on.

    A stream that another program has put in the place of the process's own is left as it is.
    """
    own, errors = sys.__stdout__, sys.__stderr__
    if own is not None and errors is not None and sys.stdout is own and sys.stderr is errors:
        sys.stdout = dropping_stream(1, own.encoding)
        sys.stderr = dropping_stream(2, errors.encoding)


def dropping_stream(descriptor: int, encoding: str = "utf-8") -> io.TextIOWrapper:
    """A text stream on a file descriptor, which it does not close; what cannot be written is dropped."""
    raw = _DroppingFile(descriptor, "w", closefd=False)
    at_once = descriptor == 2 or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors="replace", line_buffering=at_once)


class _DroppingFile(io.FileIO):
    """A file whose writes succeed, whatever becomes of the bytes."""

    def write(self, data: Any) -> int:
        """The number of bytes given."""
        size = memoryview(data).nbytes
        try:
            written = super().write(data)
        except OSError:
            return size
        return size if written is None else written  # None: it does not block, and its reader is behind
