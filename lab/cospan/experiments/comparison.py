"""Summaries of the runs of `cospan compare`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cospan.core.specification import RunSpecification
from cospan.core.statistics import known
from cospan.experiments.estimates import CONFIDENCE, interval
from cospan.experiments.methods.catalogue import INDEPENDENT, ComparedMethod, default_methods
from cospan.experiments.runner import Point, finals, method_names


@dataclass(frozen=True, slots=True)
class Summary:
    """One method at the end, over all runs: the mean of the runs' medians and its bootstrap interval."""

    method: str
    value_error: float
    low: float | None
    high: float | None
    ratio: float
    bytes_per_round: float


def methods_of_run(spec: RunSpecification) -> tuple[ComparedMethod, ...]:
    """The joint method with the run's constants, and the baselines with its decay and gain step."""
    constants: Mapping[str, Any] = {
        **{name: value for name, value in asdict(spec.method).items() if name != "steps_per_round"},
        "head_update": spec.method.head_update.value,
    }
    return tuple(default_methods(constants))


def summaries(points: Sequence[Point]) -> list[Summary]:
    """The final errors of each method, best first."""
    final = finals(points)
    independent = {point.seed: point.value_error for point in final if point.method == INDEPENDENT}
    found = []
    for name in method_names(final):
        own = [point for point in final if point.method == name]
        errors = np.array([point.value_error for point in own])
        low, high = interval(errors)
        found.append(
            Summary(
                method=name,
                value_error=float(errors.mean()),
                low=low,
                high=high,
                ratio=float(np.mean([point.value_error / independent[point.seed] for point in own])),
                bytes_per_round=float(np.mean([point.sent / point.rounds for point in own])),
            )
        )
    return sorted(found, key=lambda summary: summary.value_error)


def document(spec: RunSpecification, seeds: Sequence[int], found: Sequence[Summary]) -> dict[str, Any]:
    """`comparison.json`."""
    return {
        "workload": spec.workload,
        "agents": spec.agents,
        "rounds": spec.rounds,
        "steps_per_agent": spec.rounds * spec.method.steps_per_round,
        "feature_dim": spec.feature_dim,
        "rank": spec.rank,
        "seeds": list(seeds),
        "confidence": CONFIDENCE,
        "methods": [
            {
                "method": summary.method,
                "value_error": known(summary.value_error),
                "low": summary.low,
                "high": summary.high,
                "times_independent_td": known(summary.ratio),
                "bytes_per_agent_and_round": summary.bytes_per_round,
            }
            for summary in found
        ],
    }
