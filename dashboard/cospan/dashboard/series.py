"""The rounds of a whole run in a bounded number of points: old ones grow coarser as the run grows longer."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

COLUMNS = ("round", "movement", "subspace_error", "value_error", "p50", "p99", "contributors")
"""What a point is, in this order; see `Point`."""
_MOST_POINTS = 720
_WINDOW = 500


@dataclass(frozen=True, slots=True)
class Round:
    """What a chart shows of one closed round; None where unknown.

    Attributes:
        number: of the round.
        seconds: from its opening to its close.
        contributors: agents whose gradients counted.
        movement: of the basis, 0 to 1.
        subspace_error: sine of the largest angle to the true basis, 0 to 1.
        value_error: median over the agents.
    """

    number: int
    seconds: float
    contributors: int
    movement: float
    subspace_error: float | None = None
    value_error: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One or more rounds that follow upon each other.

    Attributes:
        last: the newest of them.
        rounds: how many.
        movement: their mean.
        subspace_error: of the newest that has one.
        value_error: of the newest that has one.
        p50: median seconds of the 500 rounds up to the newest; of joined points their mean.
        p99: the 99th percentile of the same; of joined points the larger.
        contributors: the fewest.
    """

    last: int
    rounds: int
    movement: float
    subspace_error: float | None
    value_error: float | None
    p50: float
    p99: float
    contributors: int

    def joined(self, later: "Point") -> "Point":
        """This point and the one after it as one."""
        rounds = self.rounds + later.rounds
        share = later.rounds / rounds
        return Point(
            later.last,
            rounds,
            self.movement + share * (later.movement - self.movement),
            self.subspace_error if later.subspace_error is None else later.subspace_error,
            self.value_error if later.value_error is None else later.value_error,
            self.p50 + share * (later.p50 - self.p50),
            max(self.p99, later.p99),
            min(self.contributors, later.contributors),
        )

    def as_row(self) -> list[float | int | None]:
        """In the order of `COLUMNS`, with four digits: more than a chart can show."""
        return [
            self.last,
            _short(self.movement),
            _short(self.subspace_error),
            _short(self.value_error),
            _short(self.p50),
            _short(self.p99),
            self.contributors,
        ]


class RoundSeries:
    """The points of a run, `most` of them or fewer; every one but the last stands for `stride` rounds."""

    def __init__(self, most: int = _MOST_POINTS) -> None:
        self.stride = 1
        self.points: list[Point] = []
        self.revision = 0
        """Raised when older points change."""
        self._most = most
        self._seconds: deque[float] = deque(maxlen=_WINDOW)

    def add(self, closed: Round) -> None:
        """Takes a round in; O(1) but for the percentiles, which are taken once a point."""
        self._seconds.append(closed.seconds)
        open_point = self.points[-1] if self.points and self.points[-1].rounds < self.stride else None
        if open_point is not None:
            p50, p99 = open_point.p50, open_point.p99
            if open_point.rounds + 1 == self.stride:
                p50, p99 = percentile(self._seconds, 0.5), percentile(self._seconds, 0.99)
            self.points[-1] = replace(open_point.joined(_single(closed, p50, p99)), p50=p50, p99=p99)
            return
        if len(self.points) >= self._most:
            self._halve()
        fresh = _single(closed, percentile(self._seconds, 0.5), percentile(self._seconds, 0.99))
        self.points.append(fresh)

    def learn(self, value_error: float | None, subspace_errors: Sequence[tuple[int, float]]) -> None:
        """What is known of the newest rounds only after they were taken in."""
        if value_error is not None and self.points:
            self.points[-1] = replace(self.points[-1], value_error=value_error)
        for number, error in subspace_errors:
            self._set_subspace_error(number, error)

    def _set_subspace_error(self, number: int, error: float) -> None:
        for place in range(len(self.points) - 1, -1, -1):
            point = self.points[place]
            if point.last - point.rounds < number <= point.last:
                self.points[place] = replace(point, subspace_error=error)
                return
            if point.last < number:
                return

    def _halve(self) -> None:
        pairs = zip(self.points[::2], self.points[1::2], strict=False)
        rest = self.points[-1:] if len(self.points) % 2 else []
        self.points = [first.joined(second) for first, second in pairs] + rest
        self.stride *= 2
        self.revision += 1

    @property
    def round_times(self) -> tuple[float, float] | None:
        """p50 and p99 of the newest 500 rounds, in seconds; None before the first."""
        if not self._seconds:
            return None
        return percentile(self._seconds, 0.5), percentile(self._seconds, 0.99)


def percentile(values: Sequence[float] | deque[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _single(closed: Round, p50: float, p99: float) -> Point:
    return Point(
        closed.number,
        1,
        closed.movement,
        closed.subspace_error,
        closed.value_error,
        p50,
        p99,
        closed.contributors,
    )


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
