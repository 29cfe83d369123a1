"""How many messages a stream may send: so many for every round that was opened, and some more with time.

An honest session of n agents sends at most n gradients a round, a second time after a break, and a heartbeat four
times per session timeout where it is silent otherwise. So what it may send follows from the rounds: a run of
thousands of rounds a second needs no other limit than one of a round a minute. What exceeds it can only be copies,
gradients of rounds that are over, and heartbeats that nobody needs.

A message counts for as many as the largest message of the session fits into it: so bytes are limited as well.

Time is an argument.
"""

from dataclasses import dataclass

from cospan.core.specification import RunSpecification
from cospan.wire.errors import RateLimitedError
from cospan.wire.limits import max_message_bytes

_SPARE_MESSAGES = 64.0
_HEARTBEATS_PER_LIVENESS = 16.0
"""Four times as many as an agent sends."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a session may send.

    Attributes:
        burst: at once, after long silence.
        per_round: more with every round that is opened.
        per_second: more with every second.
        message_bytes: so many count as one message; a smaller one counts as one too.
    """

    burst: float
    per_round: float
    per_second: float
    message_bytes: int

    @classmethod
    def of_session(cls, specification: RunSpecification, agents: int) -> "Terms":
        """Those of a session of so many agents."""
        return cls(
            burst=_SPARE_MESSAGES + 4.0 * agents,
            per_round=2.0 + 2.0 * agents,
            per_second=4.0 + _HEARTBEATS_PER_LIVENESS / specification.session_timeout_seconds,
            message_bytes=max_message_bytes(specification.feature_dim, specification.rank, agents),
        )


class StreamRateLimit:
    """What a stream may still send: its terms, and what has come of them so far."""

    __slots__ = ("_left", "_round", "_since", "_terms")

    def __init__(self, terms: Terms, *, round_number: int, now: float) -> None:
        """A burst, at this time in seconds, in this round."""
        self._terms, self._left = terms, terms.burst
        self._round, self._since = round_number, now

    def charge(self, message_bytes: int, round_number: int, now: float) -> None:
        """Counters a message that comes now, while this round is open.

        Raises:
            RateLimitedError: there is not as much left.
        """
        # Every message of every agent comes by here, so it is reckoned in place.
        terms = self._terms
        left = self._left + terms.per_second * (now - self._since) + terms.per_round * (round_number - self._round)
        left = min(left, terms.burst)
        left -= 1.0 if message_bytes <= terms.message_bytes else message_bytes / terms.message_bytes
        if left < 0.0:
            raise RateLimitedError(
                f"this stream sends more than the {terms.per_round:g} messages a round and {terms.per_second:g} a "
                f"second that are allowed, of {terms.message_bytes} bytes each; send each gradient once"
            )
        self._left, self._round, self._since = left, round_number, now
