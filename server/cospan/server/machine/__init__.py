"""The coordinator as a pure state machine: `step(state, event, now) -> (state, commands)`.

All rules of a run are here: who may join, what counts in a round, when it closes. No socket, file, thread or clock
is; those are in `runtime`, `rpc` and `storage`. Begin with `state`, then `dispatch`.
"""

from cospan.server.machine.dispatch import give_up_overdue, initial_state, next_deadline, restored_state, step

__all__ = ["give_up_overdue", "initial_state", "next_deadline", "restored_state", "step"]
