"""What a stream may send: an honest session never meets the limit, a flood does soon."""

import pytest
from runs import specification

from cospan.core.specification import RunSpecification
from cospan.server.admission.stream_rate import StreamRateLimit, StreamRates
from cospan.wire.errors import RateLimitedError
from cospan.wire.limits import max_message_bytes

SPEC = specification()


class Sender:
    """A stream with a clock and rounds of its own."""

    def __init__(self, agents: int = 1, spec: RunSpecification = SPEC) -> None:
        self.rates = StreamRates.of_session(spec, agents)
        self.limit = StreamRateLimit(self.rates, round_number=0, now=0.0)
        self.now, self.round = 0.0, 0

    def send(self, messages: int = 1, size: int = 100) -> None:
        for _ in range(messages):
            self.limit.charge(size, self.round, self.now)

    def sent_until_refused(self, size: int = 100) -> int:
        for sent in range(100_000):
            try:
                self.send(size=size)
            except RateLimitedError:
                return sent
        raise AssertionError("it is never refused")


@pytest.mark.parametrize("agents", [1, 5, 200])
@pytest.mark.parametrize("rounds_per_second", [0.01, 1.0, 5000.0])
def test_an_honest_session_never_meets_the_limit(agents: int, rounds_per_second: float) -> None:
    """Each agent's gradient by itself, each a second time, and heartbeats four times per session timeout."""
    sender = Sender(agents)
    for _ in range(8):
        sender.round += 1
        sender.now += 1.0 / rounds_per_second
        sender.send(2 * agents, size=sender.rates.message_bytes)
        sender.send(min(20, int(4.0 / SPEC.session_timeout_seconds / rounds_per_second)))


def test_a_network_that_stood_still_delivers_all_at_once() -> None:
    """The heartbeats of as long as anybody is waited for."""
    sender = Sender()
    sender.now = SPEC.round_timeout_seconds
    sender.send(int(4.0 * SPEC.round_timeout_seconds / SPEC.session_timeout_seconds))


def test_a_flood_within_a_round_is_refused() -> None:
    sender = Sender()
    assert sender.sent_until_refused() == sender.rates.burst == 68.0
    with pytest.raises(RateLimitedError, match=r"4 messages a round and 7\.2 a second"):
        sender.send()
    sender.round += 1
    assert sender.sent_until_refused() == 4


def test_what_is_not_spent_is_not_kept_for_ever() -> None:
    sender = Sender()
    sender.round, sender.now = 10**9, 1e9
    assert sender.sent_until_refused() == sender.rates.burst


def test_a_message_as_large_as_many_counts_as_many() -> None:
    """As large as the coordinator takes any, for the sake of groups."""
    sender = Sender()
    ordinary = max_message_bytes(SPEC.feature_dim, SPEC.rank)
    assert sender.rates.message_bytes == ordinary
    assert sender.sent_until_refused(size=4 * ordinary) == sender.rates.burst // 4
