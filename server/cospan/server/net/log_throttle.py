"""What would be logged for every connection is logged once a second, with the number of those held back."""

import threading
import time
from collections.abc import Callable, Hashable

_MOST_KINDS = 512


class LogThrottle:
    """Which of many events of the same kind are to be logged; from any thread."""

    def __init__(self, seconds: float = 1.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing has been said yet.

        Args:
            seconds: the shortest time between two events of one kind that are logged.
            clock: the time, in seconds.
        """
        self._seconds, self._clock = seconds, clock
        self._lock = threading.Lock()
        self._kinds: dict[Hashable, tuple[float, int]] = {}

    def due(self, kind: Hashable) -> int | None:
        """How many of this kind were held back since the last one that was logged; None where this one is, too."""
        now = self._clock()
        with self._lock:
            said, held_back = self._kinds.get(kind, (-float("inf"), 0))
            if now - said < self._seconds:
                self._kinds[kind] = said, held_back + 1
                return None
            self._kinds.pop(kind, None)  # the newest stand last
            self._kinds[kind] = now, 0
            if len(self._kinds) > _MOST_KINDS:
                del self._kinds[next(iter(self._kinds))]
            return held_back
