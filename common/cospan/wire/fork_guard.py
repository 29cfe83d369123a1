"""Refuses work in a process that was forked while a coordinator, a relay or an agent ran in its parent.

gRPC's threads do not exist in such a child, and their locks stay as they were: a call hangs beyond every deadline,
or the process crashes. Children of `spawn` and `forkserver` are not affected.
"""

import os
import threading

from cospan.wire.errors import ForkedProcessError


class _Process:
    """What is known of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = 0
        self.was_forked = False

    def add(self, change: int) -> None:
        with self.lock:
            self.running += change

    def in_child(self) -> None:
        self.lock = threading.Lock()  # another thread of the parent may have held it
        self.was_forked = self.was_forked or self.running > 0


_process = _Process()


def begin() -> None:
    """A coordinator, a relay or an agent runs in this process from now on.

    Raises:
        ForkedProcessError: none can, see `refuse_in_child`.
    """
    refuse_in_child()
    _process.add(1)


def end() -> None:
    """It has ended."""
    _process.add(-1)


def refuse_in_child() -> None:
    """Does nothing, but in a process that was forked while a coordinator, a relay or an agent ran in its parent.

    Raises:
        ForkedProcessError: this is such a process.
    """
    if _process.was_forked:
        raise ForkedProcessError(
            "this process was forked while a coordinator, a relay or an agent ran in its parent, and gRPC cannot "
            "be used in it; start it with multiprocessing.get_context('spawn')"
        )


os.register_at_fork(after_in_child=_process.in_child)
