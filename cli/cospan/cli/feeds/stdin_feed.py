"""JSON lines on standard input. A full backlog stops the reading, so the writer waits; the feed ends with it."""

import os
import sys
import threading
from collections.abc import Callable

from cospan.cli.feeds.refusals import RETRY_SECONDS, Refusals
from cospan.client.feeds.errors import FeedError
from cospan.client.feeds.feed import Feed
from cospan.client.feeds.step_messages import MOST_BYTES

_READ_BYTES = 65536


class StdinFeed:
    """Reads until the end of standard input, or of the context."""

    def __init__(
        self, feed: Feed, report: Callable[[str], None], read: Callable[[int], bytes] | None = None
    ) -> None:
        """`read`: n → at most n bytes, none at the end; that of standard input where None."""
        self._feed, self._refusals = feed, Refusals(report, feed.name)
        self._read = read or (lambda most: os.read(sys.stdin.fileno(), most))
        self._stopped = threading.Event()
        # It may wait for input that never comes, and must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="feed-stdin", daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return "standard input"

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._feed.wake()
        self._refusals.end()

    def _run(self) -> None:
        rest, line = b"", 1
        while not self._stopped.is_set():
            try:
                data = self._read(_READ_BYTES)
            except OSError as failure:
                self._refusals.say(f"{self._feed.name}: standard input cannot be read: {failure.strerror}")
                data = b""
            *lines, rest = (rest + data).split(b"\n")
            if not data or len(rest) > MOST_BYTES:
                # The last line may lack its end; one that is too long is refused as it is.
                lines, rest = [*lines, rest], b""
            if not self._refusals.tell(self._feed, lines, "line {line} of standard input", self._stopped, line):
                return
            line += len(lines)
            if not data:
                self._complete()
                return

    def _complete(self) -> None:
        while not self._stopped.is_set():
            try:
                self._feed.complete()
                return
            except FeedError as failure:
                self._refusals.say(str(failure))
                self._stopped.wait(RETRY_SECONDS)
