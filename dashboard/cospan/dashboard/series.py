"""The rounds of a whole run in a bounded number of points, each of which stands for more rounds in a longer run."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

_MOST_POINTS = 720
_WINDOW = 500


class _Join(Enum):
    """The value of a column for two neighbouring points together."""

    NEWEST = auto()
    MEAN = auto()
    MOST = auto()
    LEAST = auto()


_JOINS = {
    "elapsed": _Join.NEWEST,
    "movement": _Join.MEAN,
    **dict.fromkeys(("outside", "subspace_error", "value_error", "value_low", "value_high"), _Join.NEWEST),
    **dict.fromkeys(("lstd_alone", "td_alone", "td_error", "td_low", "td_high"), _Join.NEWEST),
    "p50": _Join.MEAN,
    "p99": _Join.MOST,
    **dict.fromkeys(("agents", "network", "aggregation", "disk"), _Join.MEAN),
    "contributors": _Join.LEAST,
}
COLUMNS = ("round", *_JOINS)
"""Columns of a point's row. None stands for what is unknown.

* `round`: the newest round of the point; `elapsed`: seconds of all rounds until its end.
* `movement`: of the basis, mean; `subspace_error`: sine of the largest angle to the true subspace.
* `outside`: share of the true values' variance that the basis does not hold, median over the agents.
* `value_error`, `value_low`, `value_high`: median and quartiles over the agents; `lstd_alone`, `td_alone`: medians.
* `td_error`, `td_low`, `td_high`: median and quartiles of the agents' root mean square TD errors.
* `p50`, `p99`: of the durations of the 500 rounds up to the newest, in seconds; mean and maximum of joined points.
* `agents`, `network`, `aggregation`, `disk`: parts of a round in seconds, means; see `analysis.round_parts`.
* `contributors`: minimum.
"""
_PLACES = {name: place for place, name in enumerate(COLUMNS[1:])}


@dataclass(frozen=True, slots=True)
class Round:
    """One closed round, as charts show it.

    Attributes:
        number: of the round.
        seconds: from its opening to its close.
        contributors: agents whose gradients counted.
        movement: of the basis, 0 to 1.
        more: further columns whose values are known.
    """

    number: int
    seconds: float
    contributors: int
    movement: float
    more: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Point:
    """One or more consecutive rounds.

    Attributes:
        last: the newest round.
        rounds: number of rounds.
        values: in the order of `COLUMNS` without the first.
    """

    last: int
    rounds: int
    values: tuple[float | None, ...]

    def value(self, column: str) -> float | None:
        """One value."""
        return self.values[_PLACES[column]]

    def with_values(self, known: Mapping[str, float | None]) -> "Point":
        """The point with other values in some columns."""
        values = list(self.values)
        for column, value in known.items():
            values[_PLACES[column]] = value
        return Point(self.last, self.rounds, tuple(values))

    def joined(self, later: "Point") -> "Point":
        """This point and the next one as one."""
        rounds = self.rounds + later.rounds
        share = later.rounds / rounds
        pairs = zip(_JOINS.values(), self.values, later.values, strict=True)
        values = tuple(_joined(join, one, other, share) for join, one, other in pairs)
        return Point(later.last, rounds, values)

    def as_row(self) -> list[float | int | None]:
        """The values in the order of `COLUMNS`, with four digits."""
        *values, contributors = self.values
        return [self.last, *map(rounded, values), None if contributors is None else int(contributors)]


def _joined(join: _Join, one: float | None, other: float | None, share: float) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    match join:
        case _Join.NEWEST:
            return other
        case _Join.MEAN:
            return one + share * (other - one)
        case _Join.MOST:
            return max(one, other)
        case _Join.LEAST:
            return min(one, other)


class RoundSeries:
    """At most `most` points of a run; each but the last stands for `stride` rounds."""

    def __init__(self, most: int = _MOST_POINTS) -> None:
        self.stride = 1
        self.points: list[Point] = []
        self.revision = 0
        """Increases when older points change."""
        self._most = most
        self._elapsed = 0.0
        self._seconds: deque[float] = deque(maxlen=_WINDOW)

    def add(self, closed: Round) -> None:
        """Adds a round; O(1), except for the percentiles, which are computed once per point."""
        self._seconds.append(closed.seconds)
        self._elapsed += closed.seconds
        last = self.points[-1] if self.points and self.points[-1].rounds < self.stride else None
        if last is not None and last.rounds + 1 < self.stride:
            p50, p99 = last.value("p50"), last.value("p99")
        else:
            p50, p99 = self._percentiles()
        times = {"elapsed": self._elapsed, "p50": p50, "p99": p99}
        known = {"movement": closed.movement, "contributors": closed.contributors, **closed.more, **times}
        point = Point(closed.number, 1, tuple(known.get(column) for column in _JOINS))
        if last is not None:
            self.points[-1] = last.joined(point).with_values({"p50": p50, "p99": p99})
            return
        if len(self.points) >= self._most:
            self._halve()
        self.points.append(point)

    def learn(self, known: Mapping[str, float], subspace_errors: Iterable[tuple[int, float]] = ()) -> None:
        """Sets values of the newest rounds, which become known only after they were added."""
        if known and self.points:
            self.points[-1] = self.points[-1].with_values(known)
        for number, error in subspace_errors:
            self._set_subspace_error(number, error)

    def _set_subspace_error(self, number: int, error: float) -> None:
        for place in range(len(self.points) - 1, -1, -1):
            point = self.points[place]
            if point.last - point.rounds < number <= point.last:
                self.points[place] = point.with_values({"subspace_error": error})
                return
            if point.last < number:
                return

    def fill(self, known: Mapping[str, Sequence[float]]) -> None:
        """Sets columns: one value for each point; one that is not finite is unknown."""
        for place, point in enumerate(self.points):
            values = {column: float(row[place]) for column, row in known.items() if math.isfinite(row[place])}
            self.points[place] = point.with_values(values)

    def newest(self, column: str, within: int | None = None) -> float | None:
        """The newest known value of a column, of the newest `within` points."""
        points = self.points if within is None else self.points[-within:]
        return next((value for p in reversed(points) if (value := p.value(column)) is not None), None)

    def known(self, column: str) -> list[tuple[int, float]]:
        """(round, value) of the points whose value is known, oldest first."""
        return [(p.last, value) for p in self.points if (value := p.value(column)) is not None]

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
