"""Programs on a real terminal (a pty) of a given size."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

STYLE = re.compile(r"\x1b\[[0-9;]*m")
"""A colour or weight of ECMA-48."""
SECONDS = 120.0


def on_terminal(
    command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], columns: int, rows: int
) -> tuple[int, str]:
    """Exit code and everything that a program writes to a terminal of that size, as it was written.

    Raises:
        AssertionError: it does not end within `SECONDS`.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    kept = {name: value for name, value in environment.items() if name not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=kept,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    written, end = b"", time.monotonic() + SECONDS
    try:
        while True:
            ready, _, _ = select.select([ours], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"it does not end; so far: {written[-2000:]!r}"
            try:
                piece = os.read(ours, 2**16)
            except OSError:  # Linux: the last program has closed the terminal
                break
            if not piece:
                break
            written += piece
        return process.wait(SECONDS), written.decode().replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait(SECONDS)
        os.close(ours)


def plain(text: str) -> str:
    """The text without colours."""
    return STYLE.sub("", text)
