"""One kind of message is logged once a second."""

from cospan.server.net.log_throttle import LogThrottle


def test_one_kind_is_said_once_a_second_and_the_rest_counted() -> None:
    now = 0.0
    sparing = LogThrottle(clock=lambda: now)
    assert [sparing.due("a"), sparing.due("a"), sparing.due("a"), sparing.due("b")] == [0, None, None, 0]
    now = 1.0
    assert [sparing.due("a"), sparing.due("a")] == [2, None]
    for number in range(2000):
        sparing.due(number)
    assert len(sparing._kinds) <= 512
