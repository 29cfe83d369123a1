"""Steps on standard input: lines in pieces, errors by line, a full backlog, the end of the pipe."""

import threading
from collections.abc import Callable

from feed_values import feed_of

from cospan.cli.feeds.stdin_feed import StdinFeed
from cospan.client.feeds.feed import Feed

SECONDS = 30.0


def reader(*pieces: bytes) -> Callable[[int], bytes]:
    left = list(pieces)
    return lambda _: left.pop(0) if left else b""


def fed(feed: Feed, *pieces: bytes) -> list[str]:
    """What is reported of input that comes in these pieces."""
    said: list[str] = []
    stdin = StdinFeed(feed, said.append, reader(*pieces))
    with stdin as place:
        assert place == "standard input"
        stdin._thread.join(SECONDS)
        assert not stdin._thread.is_alive()
    return said


def step(number: int) -> bytes:
    return b'{"sequence": %d, "observation": [1.0], "reward": 1}\n' % number


def test_lines_come_in_pieces_and_the_last_one_may_lack_its_end() -> None:
    feed = feed_of()
    whole = b"".join(map(step, range(5)))
    assert fed(feed, whole[:20], whole[20:150], whole[150:-1]) == []
    assert [each.sequence for each in feed.settled_from(0)[0]] == list(range(5))
    assert feed.is_complete


def test_errors_name_their_line_and_one_is_told_a_second() -> None:
    feed = feed_of()
    said, more = fed(feed, step(0) + b"no json\n", step(1) + b"nor this\n")
    assert said.startswith("line 2 of standard input: 'no json' is no JSON")
    assert more == f"{feed.name}: 1 more after that"
    assert feed.next_sequence == 2


def test_a_line_without_an_end_is_refused_and_later_ones_are_read(monkeypatch: object) -> None:
    feed = feed_of()
    long = b"x" * 700_000
    said = fed(feed, long, long, b"\n", step(0))
    assert "bytes; at most 1,048,576 are read" in said[0]
    assert feed.next_sequence == 1


def test_a_full_backlog_stops_the_reading_until_there_is_room() -> None:
    feed = feed_of(limit=3)
    said: list[str] = []
    full = threading.Event()

    def report(text: str) -> None:
        said.append(text)
        full.set()

    stdin = StdinFeed(feed, report, reader(b"".join(map(step, range(6)))))
    with stdin:
        assert full.wait(SECONDS)
        assert "holds 3 steps" in said[0]
        assert not feed.is_complete
        feed.release(2)
        feed.release(5)
        stdin._thread.join(SECONDS)
    assert feed.next_sequence == 6
    assert feed.is_complete


def test_the_end_of_the_agent_ends_the_reading() -> None:
    feed = feed_of(limit=1)
    stdin = StdinFeed(feed, lambda _: None, reader(b"".join(map(step, range(6)))))
    with stdin:
        pass
    stdin._thread.join(SECONDS)
    assert not stdin._thread.is_alive()
    closed = feed_of()
    closed.close()
    assert fed(closed, step(0)) == []
