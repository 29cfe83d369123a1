"""The coordinator as a pure state machine: `step(state, event, now) -> (state, commands)`.

It holds all rules of a run: who may join, which gradients count, when a round closes. It has no socket, file,
thread or clock; those are in `runtime`, `rpc` and `storage`. Begin with `state`, then the table in `dispatch`.
"""

from cospan.server.machine.dispatch import step
from cospan.server.machine.snapshot import restored_state
from cospan.server.machine.state import initial_state
from cospan.server.machine.timeouts import drop_overdue, next_deadline

__all__ = ["drop_overdue", "initial_state", "next_deadline", "restored_state", "step"]
