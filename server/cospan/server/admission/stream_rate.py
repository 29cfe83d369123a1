"""Rate limit of one stream's messages: a token bucket that is refilled by rounds and by time.

An honest session of n agents sends at most n gradients per round, each once more after a reconnect, and four
heartbeats per session timeout while it is otherwise silent. So the limit follows from the rounds, and suits runs of
thousands of rounds per second as well as of one round per minute. What exceeds it is duplicates, late gradients and
needless heartbeats. A message larger than the session's largest counts as several, so bytes are limited as well.
"""

from dataclasses import dataclass

from cospan.core.specification import RunSpecification
from cospan.wire.errors import RateLimitedError
from cospan.wire.limits import max_message_bytes

_SPARE_MESSAGES = 64.0
_HEARTBEATS_PER_TIMEOUT = 16.0
"""Four times what an agent sends per session timeout."""


@dataclass(frozen=True, slots=True)
class StreamRates:
    """The rate limit of a session.

    Attributes:
        burst: capacity of the bucket, in messages.
        per_round: messages added with every round that opens.
        per_second: messages added with every second.
        message_bytes: largest size that counts as one message.
    """

    burst: float
    per_round: float
    per_second: float
    message_bytes: int

    @classmethod
    def of_session(cls, specification: RunSpecification, agents: int) -> "StreamRates":
        """The limit of a session that hosts `agents` agents."""
        return cls(
            burst=_SPARE_MESSAGES + 4.0 * agents,
            per_round=2.0 + 2.0 * agents,
            per_second=4.0 + _HEARTBEATS_PER_TIMEOUT / specification.session_timeout_seconds,
            message_bytes=max_message_bytes(
                specification.feature_dim, specification.rank, agents, pooled=specification.pooled_length
            ),
        )


class StreamRateLimit:
    """The token bucket of one stream."""

    __slots__ = ("_left", "_rates", "_round", "_since")

    def __init__(self, rates: StreamRates, *, round_number: int, now: float) -> None:
        """A full bucket, at time `now` (seconds) in this round."""
        self._rates, self._left = rates, rates.burst
        self._round, self._since = round_number, now

    def charge(self, message_bytes: int, round_number: int, now: float) -> None:
        """Charges for a message that arrives at time `now` (seconds) in this round.

        Raises:
            RateLimitedError: the bucket holds too little.
        """
        most = self._rates
        left = self._left + most.per_second * (now - self._since) + most.per_round * (round_number - self._round)
        left = min(left, most.burst)
        left -= 1.0 if message_bytes <= most.message_bytes else message_bytes / most.message_bytes
        if left < 0.0:
            raise RateLimitedError(
                f"this stream sends more than the {most.per_round:g} messages a round and {most.per_second:g} a "
                f"second that are allowed, of {most.message_bytes} bytes each; send each gradient once"
            )
        self._left, self._round, self._since = left, round_number, now
