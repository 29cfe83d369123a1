"""What is tracked of a run: series over the rounds, and numbers at its end."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cospan.cli.run_folder.progress_log import RoundRow
from cospan.client.files.agent_result import AgentResult
from cospan.core.statistics import medians_by_round

SERIES: Mapping[str, str] = {
    "seconds": "round/seconds",
    "contributors": "round/contributors",
    "basis_movement": "round/basis_movement",
    "orthonormality_error": "round/orthonormality_error",
    "subspace_error": "error/subspace",
    "value_error": "error/value",
    "lstd_alone_error": "error/lstd_alone",
    "td_alone_error": "error/td_alone",
}
"""The name of each column of `rounds.csv` in a tracker."""
ALWAYS = SERIES["contributors"]
"""The series with a number for every round."""
_CURVES: Mapping[str, str] = {
    "curve_gain_estimate": "agents/gain_estimate",
    "curve_mean_squared_td_error": "agents/mean_squared_td_error",
}
"""Medians over the agents of columns of their learning curves."""
_AT_THE_END = (
    *("value_error", "gain_error", "subspace_error", "ratio", "shared_weight", "rank_in_use"),
    *("agents", "seconds", "rounds_per_second", "agent_steps", "sites_worse_than_alone"),
)
"""Numbers of `result.json` that have a series of one point, `result/<name>`."""


@dataclass(frozen=True, slots=True)
class Point:
    """Numbers of one step.

    Attributes:
        step: the round, from 0.
        time: when it closed, in seconds since 1970.
        values: by series.
    """

    step: int
    time: float
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a tracker shows of a run beside its series.

    Attributes:
        name: of the run folder.
        workload: of the run.
        constants: of the specification, flat: text, numbers, truth values.
    """

    name: str
    workload: str
    constants: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, specification: Mapping[str, Any]) -> "RunFacts":
        """Of a run's name and its specification as nested dictionaries."""
        return cls(name, str(specification.get("workload", "")), dict(_flat(specification)))


def _flat(values: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value if isinstance(value, int | float | bool | str) else str(value)


def points_of_rows(rows: Sequence[RoundRow], end: float) -> list[Point]:
    """The points of consecutive rounds.

    Args:
        rows: of the rounds.
        end: when the last of them closed, in seconds since 1970.
    """
    found = []
    for row in reversed(rows):
        numbers = {name: getattr(row, column) for column, name in SERIES.items()}
        values = {name: float(number) for name, number in numbers.items() if number is not None}
        finite = {name: number for name, number in values.items() if math.isfinite(number)}
        found.append(Point(row.round, end, finite))
        end -= row.seconds
    return found[::-1]


def points_of_agents(results: Iterable[AgentResult], rows: Sequence[RoundRow], end: float) -> list[Point]:
    """Medians over the agents of their learning curves, for rounds of which they are known."""
    found = list(results)
    rounds = [agent.array("curve_round") for agent in found]
    medians = {
        name: medians_by_round(rounds, [agent.array(column) for agent in found]) for column, name in _CURVES.items()
    }
    times = {point.step: point.time for point in points_of_rows(rows, end)}
    steps = sorted({step for values in medians.values() for step in values})
    return [
        Point(
            step, times.get(step, end), {name: values[step] for name, values in medians.items() if step in values}
        )
        for step in steps
    ]


def point_of_result(document: Mapping[str, Any], end: float) -> Point:
    """The numbers of `result.json`, at the last round."""
    numbers = {name: document.get(name) for name in _AT_THE_END}
    numbers |= dict(document.get("baselines") or {})
    values = {
        f"result/{name}": float(number)
        for name, number in numbers.items()
        if isinstance(number, int | float) and math.isfinite(number)
    }
    return Point(max(0, int(document.get("rounds", 0)) - 1), end, values)
