"""When a round has enough gradients: the quorum, its deadline, and how the deadline adapts to the fleet."""

import math
from dataclasses import dataclass

from cospan.core.run_fields import Participation
from cospan.core.specification import RunSpecification

_SMOOTHING = 1.0 / 8.0
_DEVIATION_SMOOTHING = 1.0 / 4.0
_DEVIATIONS = 4.0
_MIN_MARGIN = 2.0
"""The deadline is at least this multiple of the mean time to quorum: agents of half the speed are counted."""


@dataclass(frozen=True, slots=True)
class QuorumPace:
    """Smoothed mean and deviation of the time to quorum, in seconds (as RFC 6298).

    The time to quorum and not to the last gradient: no deadline cuts it off, so a fleet that slows down lengthens
    the deadline.
    """

    mean: float
    deviation: float

    @property
    def deadline_seconds(self) -> float:
        """Time after a round's opening at which it stops waiting for stragglers."""
        return max(self.mean + _DEVIATIONS * self.deviation, _MIN_MARGIN * self.mean)


def update_pace(pace: QuorumPace | None, seconds: float) -> QuorumPace:
    """The pace after one more round, which took `seconds` to quorum."""
    if pace is None:
        return QuorumPace(seconds, seconds / 2.0)
    return QuorumPace(
        mean=pace.mean + _SMOOTHING * (seconds - pace.mean),
        deviation=pace.deviation + _DEVIATION_SMOOTHING * (abs(seconds - pace.mean) - pace.deviation),
    )


def required_gradients(specification: RunSpecification, agents: int) -> int:
    """How many gradients a round of `agents` agents needs before it may close; 1 or more.

    Gradients that arrive between the quorum and the deadline count as well.
    """
    if specification.participation is Participation.ALL:
        return max(1, agents)
    quorum = specification.quorum
    wanted = math.ceil(quorum * agents) if quorum < 1.0 else int(quorum)
    return max(1, min(wanted, agents))


def deadline_seconds(specification: RunSpecification, pace: QuorumPace | None) -> float:
    """How long a round waits for more than its quorum; at most `round_timeout_seconds`."""
    longest = specification.round_timeout_seconds
    if specification.participation is Participation.ALL:
        return longest
    if specification.deadline_seconds > 0.0:
        return min(specification.deadline_seconds, longest)
    return longest if pace is None else min(pace.deadline_seconds, longest)
