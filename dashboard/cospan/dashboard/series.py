"""The rounds of a whole run in a bounded number of points, each of which stands for more rounds in a longer run."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

COLUMNS = ("round", "movement", "subspace_error", "value_error", "p50", "p99", "contributors")
"""Columns of a point's row; see `Point`."""
_MOST_POINTS = 720
_WINDOW = 500


@dataclass(frozen=True, slots=True)
class Round:
    """One closed round, as charts show it.

    Attributes:
        number: of the round.
        seconds: from its opening to its close.
        contributors: agents whose gradients counted.
        movement: of the basis, 0 to 1.
        subspace_error: sine of the largest angle to the true basis, 0 to 1; None if unknown.
        value_error: median over the agents; None if unknown.
    """

    number: int
    seconds: float
    contributors: int
    movement: float
    subspace_error: float | None = None
    value_error: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One or more consecutive rounds.

    Attributes:
        last: the newest round.
        rounds: number of rounds.
        movement: mean.
        subspace_error: of the newest round that has one.
        value_error: of the newest round that has one.
        p50: median duration of the 500 rounds up to the newest, in seconds; the mean of joined points.
        p99: 99th percentile of the same; the maximum of joined points.
        contributors: minimum.
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
        """This point and the next one as one."""
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
        """The values in the order of `COLUMNS`, with four digits."""
        values = (self.movement, self.subspace_error, self.value_error, self.p50, self.p99)
        return [self.last, *map(rounded, values), self.contributors]


class RoundSeries:
    """At most `most` points of a run; each but the last stands for `stride` rounds."""

    def __init__(self, most: int = _MOST_POINTS) -> None:
        self.stride = 1
        self.points: list[Point] = []
        self.revision = 0
        """Increases when older points change."""
        self._most = most
        self._seconds: deque[float] = deque(maxlen=_WINDOW)

    def add(self, closed: Round) -> None:
        """Adds a round; O(1), except for the percentiles, which are computed once per point."""
        self._seconds.append(closed.seconds)
        last = self.points[-1] if self.points and self.points[-1].rounds < self.stride else None
        p50, p99 = (last.p50, last.p99) if last and last.rounds + 1 < self.stride else self._percentiles()
        errors = closed.subspace_error, closed.value_error
        point = Point(closed.number, 1, closed.movement, *errors, p50, p99, closed.contributors)
        if last is not None:
            self.points[-1] = replace(last.joined(point), p50=p50, p99=p99)
            return
        if len(self.points) >= self._most:
            self._halve()
        self.points.append(point)

    def learn(self, value_error: float | None, subspace_errors: Sequence[tuple[int, float]]) -> None:
        """Sets errors of the newest rounds, which become known only after they were added."""
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
        return self._percentiles() if self._seconds else None

    def _percentiles(self) -> tuple[float, float]:
        return percentile(self._seconds, 0.5), percentile(self._seconds, 0.99)


def percentile(values: Sequence[float] | deque[float], share: float) -> float:
    """The smallest value that at least a share `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def rounded(value: float | None) -> float | None:
    """The value with four digits, more than a chart can show; None if it is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
