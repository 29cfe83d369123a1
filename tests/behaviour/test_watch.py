"""Live views on real terminals (pseudo ones), in pipes, and for programs; across a restart of the coordinator."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from behaviour.command import TINY, TOY, environment, line_of, started
from runs import SECONDS

_COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|38|9[0-7])(?:;\d+)*m")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A process on a pseudo-terminal of a given size."""

    def __init__(self, *arguments: str, cwd: Path, columns: int = 40, lines: int = 12, **more: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        kept = environment(TERM="xterm", PYTHONIOENCODING="utf-8", **more)
        for name in ("COLUMNS", "LINES", *(() if "NO_COLOR" in more else ("NO_COLOR",))):
            kept.pop(name, None)  # the environment of the tests may set a terminal's width
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cospan.cli.main", *arguments],
            cwd=cwd, env=kept, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.text = ""

    def read_until(self, text: str) -> None:
        """Reads until it has said something."""
        deadline = time.monotonic() + SECONDS
        while text not in _ESCAPE.sub("", self.text):
            assert self._read(deadline - time.monotonic()), f"it did not say {text!r}: {self.text}"

    def read_all(self) -> str:
        """All that it has said when it has ended."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline - time.monotonic()):
            pass
        assert time.monotonic() < deadline
        return self.text

    def _read(self, seconds: float) -> bool:
        if seconds <= 0 or not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextlib.contextmanager
def on_terminal(*arguments: str, cwd: Path, **more: str) -> Iterator[Terminal]:
    terminal = Terminal(*arguments, cwd=cwd, **more)
    try:
        yield terminal
    finally:
        terminal.close()


@contextlib.contextmanager
def fleet(folder: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A coordinator with two agents, and its address."""
    said = ("coordinator", "--workload", TOY, "--agents", "2", "--rank", "1", "--json", *more)
    with contextlib.ExitStack() as stack:
        coordinator = stack.enter_context(started(*said, cwd=folder))
        address = json.loads(line_of(coordinator, '"listening"'))["address"]
        for name in ("0", "1"):
            stack.enter_context(started("agent", TOY, "--id", name, "--coordinator", address, cwd=folder))
        yield coordinator, address


@pytest.mark.parametrize("more", [{}, {"NO_COLOR": "1"}], ids=["colour", "no colour"])
def test_a_run_on_a_narrow_terminal_stays_within_it(more: dict[str, str], tmp_path: Path) -> None:
    said = ("run", TOY, *TINY, "--rounds", "500", "--output", "here")  # long enough to be seen, however quick
    with on_terminal(*said, cwd=tmp_path, **more) as terminal:
        text = terminal.read_all()
        assert terminal.process.wait(SECONDS) == 0
    assert "\x1b[?25l" in text, "the cursor was hidden: it is the live view"
    assert "\x1b[?25h" in text, "and shown again"
    assert bool(_COLOUR.search(text)) is not bool(more)
    shown = [line for line in re.split(r"[\r\n]+", _ESCAPE.sub("", text)) if "rounds/s" in line or "round " in line]
    live = [line for line in shown if not line.startswith(("cospan", "500 rounds", "here"))]
    assert live
    assert max(map(len, live)) <= 40


def test_watch_on_a_narrow_terminal(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        _, address = stack.enter_context(fleet(tmp_path, "--port", "0", "--rounds", "0"))
        said = ("watch", "--coordinator", address, "--every", "0.2")
        terminal = stack.enter_context(on_terminal(*said, cwd=tmp_path))
        terminal.read_until("rounds/s")
        terminal.read_until("site-1")
        os.kill(terminal.process.pid, signal.SIGINT)
        text = terminal.read_all()
        assert terminal.process.wait(SECONDS) == 0, "to stop looking is no failure"
    assert "Traceback" not in text
    assert text.rstrip().endswith("\x1b[?25h"), "the cursor is there again"
    assert max(map(len, re.split(r"[\r\n]+", _ESCAPE.sub("", text)))) <= 40


def test_watch_outlives_a_coordinator_that_is_started_again(tmp_path: Path) -> None:
    stored = ("--run-folder", "run", "--rounds", "0")
    with contextlib.ExitStack() as stack:
        coordinator, address = stack.enter_context(fleet(tmp_path, "--port", "0", *stored))
        watch = stack.enter_context(
            started("watch", "--coordinator", address, "--every", "0.1", "--json", cwd=tmp_path)
        )
        before = json.loads(line_of(watch, '"event": "status"'))
        coordinator.send_signal(signal.SIGTERM)
        assert coordinator.wait(SECONDS) == 75
        line_of(watch, '"event": "unanswered"')
        port = address.rpartition(":")[2]
        again = stack.enter_context(started("coordinator", "--port", port, *stored, cwd=tmp_path))
        after = json.loads(line_of(watch, '"event": "status"'))
        while after["phase"] != "collecting":
            after = json.loads(line_of(watch, '"event": "status"'))
        assert (after["run_id"], after["incarnation"]) == (before["run_id"], before["incarnation"] + 1)
        again.send_signal(signal.SIGINT)
        ended = json.loads(line_of(watch, '"event": "ended"'))
        assert watch.wait(SECONDS) == 0
    assert ended["ended_after"] >= after["round"]


def test_watch_gives_up_when_nobody_answers(tmp_path: Path) -> None:
    with started(
        "watch", "--coordinator", "127.0.0.1:1", "--every", "0.1", "--progress-timeout-seconds", "0.5", cwd=tmp_path
    ) as watch:
        out, err = watch.communicate(timeout=SECONDS)
    assert watch.returncode == 1
    assert err.startswith("cospan: the coordinator at 127.0.0.1:1 does not answer")
    assert out.count("\n") == 1, "one line that it is not there, and no picture"
