"""Sentences that several programs show about a run."""

from collections.abc import Sequence

from cospan.core.method import Method
from cospan.wire.text import listed


def bound_note(names: Sequence[str], method: Method) -> str:
    """Says that the ball ‖w‖ ≤ U has cut the heads of these agents, gives U, and names the remedy."""
    heads = "the head of" if len(names) == 1 else "the heads of"
    scaling = "" if method.reward_scaled else ", scale the rewards down, or set --reward-scaled"
    return (
        f"{heads} {listed(names)} reached head_radius = {method.head_radius:g} and cannot grow further, so the "
        f"values are wrong; raise --head-radius (inf for no bound){scaling}"
    )


def waited(seconds: float) -> str:
    """A time for which something is waited for: 90 s, 12 min, 3.5 h, 2 d."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size or seconds == size:
            return f"{round(seconds / size, 1):g} {unit}"
    return f"{seconds:.0f} s"
