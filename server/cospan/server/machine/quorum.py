"""When a round has enough: the quorum, its deadline, and how the deadline is learnt."""

import math
from dataclasses import dataclass

from cospan.core.run_fields import Participation
from cospan.core.specification import RunSpecification

_SMOOTHING = 1.0 / 8.0
_DEVIATION_SMOOTHING = 1.0 / 4.0
_DEVIATIONS = 4.0
_LEAST_MARGIN = 2.0
"""A round waits at least this many times as long as its quorum usually takes: who is half as fast still counts."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long rounds take until their quorum is there: smoothed mean and deviation, in seconds (as RFC 6298).

    The time of the quorum, and not that of the last gradient: no deadline ever cuts it off, so a fleet that slows
    down makes the deadline longer.
    """

    mean: float
    deviation: float

    @property
    def deadline_seconds(self) -> float:
        """After how long the stragglers of a round are not waited for any more."""
        return max(self.mean + _DEVIATIONS * self.deviation, _LEAST_MARGIN * self.mean)


def with_round(pace: Pace | None, seconds: float) -> Pace:
    """The pace after one more round, whose quorum was there after so many seconds."""
    if pace is None:
        return Pace(seconds, seconds / 2.0)
    return Pace(
        mean=pace.mean + _SMOOTHING * (seconds - pace.mean),
        deviation=pace.deviation + _DEVIATION_SMOOTHING * (abs(seconds - pace.mean) - pace.deviation),
    )


def needed(specification: RunSpecification, taking_part: int) -> int:
    """How many gradients a round needs that `taking_part` agents take part in; 1 or more.

    More come from those that are there before the deadline.
    """
    if specification.participation is Participation.ALL:
        return max(1, taking_part)
    quorum = specification.quorum
    wanted = math.ceil(quorum * taking_part) if quorum < 1.0 else int(quorum)
    return max(1, min(wanted, taking_part))


def deadline_seconds(specification: RunSpecification, pace: Pace | None) -> float:
    """How long a round waits for more than its quorum, at most `round_timeout_seconds`."""
    longest = specification.round_timeout_seconds
    if specification.participation is Participation.ALL:
        return longest
    if specification.deadline_seconds > 0.0:
        return min(specification.deadline_seconds, longest)
    return longest if pace is None else min(pace.deadline_seconds, longest)
