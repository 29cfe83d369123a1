"""Events for browsers: their form, and a browser that does not read."""

import json

from cospan.dashboard.broadcaster import Broadcaster, event


def test_an_event_is_one_line_of_json() -> None:
    kind, data, *rest = event("frame", {"text": "two\nlines"}).decode().split("\n")
    assert (kind, rest) == ("event: frame", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == {"text": "two\nlines"}


async def _left_behind() -> list[bytes]:
    broadcaster = Broadcaster()
    slow = broadcaster.follow(b"whole")
    seen = [await anext(slow)]
    for number in range(50):
        broadcaster.publish(b"%d" % number)
    assert len(broadcaster) == 0, "who does not read is not kept"
    seen += [message async for message in slow]
    return seen


def test_a_browser_that_does_not_read_is_left_behind() -> None:
    import asyncio

    assert asyncio.run(_left_behind()) == [b"whole"]
