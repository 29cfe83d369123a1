"""A child process: its end is its own, and its last sentence is kept."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from typing import Any

from runs import SECONDS

from cospan.cli.processes import child_process as children
from cospan.cli.processes.child_process import Child
from cospan.cli.processes.local_fleet import with_last_line


class Heard:
    """What a child did."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.ended: list[str] = []

    def on_event(self, child: Child, document: dict[str, Any]) -> None:
        self.events.append(document)

    def on_complaint(self, child: Child, text: str) -> None:
        self.complaints.append(text)

    def on_exit(self, child: Child) -> None:
        self.ended.append(child.ending)


async def heard_of(*command: str) -> tuple[Child, Heard]:
    pipes: Any = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
    process, held = await children._started(*command, limit=2**16, start_new_session=True, **pipes)
    heard = Heard()
    child = Child("site-0", process, held, heard)
    await asyncio.wait_for(child.wait(), SECONDS)
    return child, heard


def test_a_child_has_ended_although_its_helper_holds_its_pipes() -> None:
    """An environment may start a process that outlives it."""
    script = 'sleep 600 & echo "{\\"event\\": \\"finished\\", \\"helper\\": $!}"; echo last words >&2'
    child, heard = asyncio.run(heard_of("/bin/sh", "-c", script))
    (event,) = heard.events
    os.kill(event["helper"], signal.SIGKILL)
    assert not child.running
    assert (child.last_line, heard.ended) == ("last words", ["ended with exit code 0"])


def test_what_a_child_said_last_explains_its_end() -> None:
    """One that fails at its start has no other way to say why."""
    child, _ = asyncio.run(heard_of("/bin/sh", "-c", "echo cospan: no module named numpy >&2; exit 1"))
    assert with_last_line(child, f"site-0 {child.ending}") == (
        "site-0 ended with exit code 1; it said last: no module named numpy"
    )
    silent, _ = asyncio.run(heard_of("/bin/sh", "-c", "exit 1"))
    assert with_last_line(silent, f"site-0 {silent.ending}") == "site-0 ended with exit code 1"


def test_all_that_a_child_said_is_heard_before_its_end() -> None:
    script = "import sys; [print('line', n, file=sys.stderr) for n in range(5000)]; sys.exit(7)"
    child, heard = asyncio.run(heard_of(sys.executable, "-c", script))
    assert len(heard.complaints) == 5000
    assert (child.last_line, heard.ended) == ("line 4999", ["ended with exit code 7"])
