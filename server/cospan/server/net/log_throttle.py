"""Limits log lines of one kind to one per second, and counts the others."""

import threading
import time
from collections.abc import Callable, Hashable

_MOST_KINDS = 512


class LogThrottle:
    """Decides which of many events of one kind are logged; thread-safe."""

    def __init__(self, seconds: float = 1.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`seconds` is the least time between two logged events of one kind; `clock` gives the time in seconds."""
        self._seconds, self._clock = seconds, clock
        self._lock = threading.Lock()
        self._kinds: dict[Hashable, tuple[float, int]] = {}

    def due(self, kind: Hashable) -> int | None:
        """Number of events of this kind held back since the last logged one; None if this one is held back too."""
        now = self._clock()
        with self._lock:
            logged, held_back = self._kinds.get(kind, (-float("inf"), 0))
            if now - logged < self._seconds:
                self._kinds[kind] = logged, held_back + 1
                return None
            self._kinds.pop(kind, None)  # the newest kind comes last
            self._kinds[kind] = now, 0
            if len(self._kinds) > _MOST_KINDS:
                del self._kinds[next(iter(self._kinds))]
            return held_back
