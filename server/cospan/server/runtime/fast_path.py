"""The server's part of the fast path (ADR 12): gradients of one round that the machine counts together.

`COSPAN_FAST_PATH=0` turns it off: each gradient is an event of its own. The codec's part is
`cospan.wire.codec.fast_path`.
"""

import asyncio

from cospan.server.machine.counting import is_batchable
from cospan.server.machine.events import Command, Event, GradientArrived, GradientsArrived
from cospan.server.machine.state import CoordinatorState
from cospan.server.runtime.machine_loop import MachineLoop
from cospan.wire.codec.fast_path import ENABLED
from cospan.wire.messages import GradientUpload


class GradientIntake:
    """Passes gradients to the machine; those of one round together, as their order means nothing.

    The machine gets them when all that it awaits are there, before any other event, and after `seconds` at the
    latest.
    """

    def __init__(self, loop: MachineLoop[CoordinatorState, Event, Command], seconds: float) -> None:
        self._loop, self._seconds, self._gathers = loop, seconds, "gather" in ENABLED
        self._gathered: dict[str, GradientUpload] = {}
        self._timer: asyncio.TimerHandle | None = None

    def take(self, token: str, upload: GradientUpload) -> None:
        """Lets a gradient arrive.

        Raises:
            RemoteError: the session must not send it now; nothing has changed.
        """
        state = self._loop.state
        if not self._gathers or token in self._gathered or not is_batchable(state, token, upload):
            self._loop.handle(*self.pending(), GradientArrived(token, upload))
            return
        self._gathered[token] = upload
        if len(self._gathered) == state.open_round.awaited.block_count:
            self._loop.handle(*self.pending())
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._on_timer)

    def pending(self) -> list[Event]:
        """The gradients that the machine has not seen, as one event; they must be handled before any other."""
        gathered, self._gathered = self._gathered, {}
        return [GradientsArrived(gathered)] if gathered else []

    def _on_timer(self) -> None:
        self._timer = None
        self._loop.handle(*self.pending())
