"""A series of numbers as one line of small bars."""

import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*%#"
"""For terminals that cannot show the blocks."""
_FLOOR = 1e-16


def sparkline(values: Sequence[float], width: int, *, bars: str = BLOCKS) -> str:
    """The newest `width` values, one character each, on a logarithmic scale from the least to the greatest of them.

    Args:
        values: 0 or more each, oldest first; what is not finite is left blank.
        width: the most characters.
        bars: from low to high.
    """
    shown = list(values[-width:]) if width > 0 else []
    heights = [math.log10(max(value, _FLOOR)) if math.isfinite(value) else None for value in shown]
    known = [height for height in heights if height is not None]
    if not known:
        return " " * len(shown)
    low, span = min(known), max(known) - min(known)

    def bar(height: float | None) -> str:
        if height is None:
            return " "
        return bars[round((height - low) / span * (len(bars) - 1)) if span > 0.0 else len(bars) // 2]

    return "".join(map(bar, heights))
