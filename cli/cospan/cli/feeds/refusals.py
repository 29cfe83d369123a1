"""Tells a feed its lines, and people of steps that were refused: one sentence a second at most."""

import threading
import time
from collections.abc import Callable

from cospan.client.feeds.errors import FeedError
from cospan.client.feeds.feed import Feed
from cospan.client.feeds.step_messages import Told, tell

RETRY_SECONDS = 1.0
_SECONDS = 1.0


class Refusals:
    """Of one feed; from any thread."""

    def __init__(
        self, report: Callable[[str], None], name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`name` of the agent."""
        self._report, self._name, self._clock = report, name, clock
        self._lock = threading.Lock()
        self._due = -_SECONDS
        self._held_back = 0
        self._told_past = False

    def tell(self, feed: Feed, lines: list[bytes], where: str, stopped: threading.Event, first: int = 1) -> bool:
        """Tells the feed these lines; what the backlog has no room for is told again when it has.

        Args:
            feed: of the agent.
            lines: each a JSON message.
            where: they come from: "line {line} of standard input".
            stopped: is set when the agent ends.
            first: number of the first line.

        Returns:
            Whether they are durable, or refused for good; false where the agent ends before.
        """
        while lines and not stopped.is_set():
            try:
                told = tell(feed, lines, first)
            except FeedError as failure:
                if feed.is_closed:
                    return False
                self.say(str(failure))
                stopped.wait(RETRY_SECONDS)
                continue
            self.look(told, where)
            if not told.full:
                return True
            feed.wait_for_room(stopped.is_set)
        return not stopped.is_set()

    def look(self, told: Told, where: str) -> None:
        """Tells of what was refused.

        Args:
            told: what became of a message.
            where: it came from: "line 17 of standard input".
        """
        with self._lock:
            for line, text in told.refused:
                self._say(f"{where.format(line=line)}: {text}", told.refusals)
            if told.full:
                self._say(f"{self._name}: {told.full}", 1)
            if told.past and not self._told_past:
                self._told_past = True
                self._say(
                    f"{self._name}: {told.past} steps are older than those that are remembered, and are taken as "
                    f"repeated; a sender that begins its numbers again must continue behind step {told.newest}",
                    1,
                )

    def say(self, text: str) -> None:
        """Tells something else, under the same limit."""
        with self._lock:
            self._say(text, 1)

    def end(self) -> None:
        """Tells how many sentences were held back since the last one that was told."""
        with self._lock:
            if self._held_back:
                self._report(f"{self._name}: {self._held_back} more after that")
            self._held_back = 0

    def _say(self, text: str, count: int) -> None:
        now = self._clock()
        if now < self._due:
            self._held_back += count
            return
        more = f" ({self._held_back} more before)" if self._held_back else ""
        self._due, self._held_back = now + _SECONDS, 0
        self._report(f"{text}{more}")
