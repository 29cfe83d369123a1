"""Summaries of the runs of `cospan compare`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cospan.core.specification import RunSpecification
from cospan.core.statistics import known
from cospan.experiments.estimates import CONFIDENCE, interval
from cospan.experiments.methods.catalogue import JOINT, LSTD_ALONE, TD_ALONE, ComparedMethod, default_methods
from cospan.experiments.runner import WHOLE_FLEET, Point, finals, method_names


@dataclass(frozen=True, slots=True)
class Summary:
    """One method at the end, over all runs: the mean of the runs' medians and its bootstrap interval.

    Attributes:
        method: its name.
        value_error: the mean over the runs of the median over the agents.
        low: of the interval of that mean; `high` likewise; None with one run.
        high: see `low`.
        ratio: the mean over the runs of the median over that of the best alone, LSTD or TD.
        bytes_per_round: sent and received by an agent.
    """

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
    alone = _best_alone(final)
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
                ratio=float(np.mean([_over(point.value_error, alone[point.seed, point.agent]) for point in own])),
                bytes_per_round=float(np.mean([point.sent / point.rounds for point in own])),
            )
        )
    return sorted(found, key=lambda summary: summary.value_error)


def _over(error: float, alone: float) -> float:
    """Their ratio; nan where held-out data give no error above 0 for the best alone."""
    return error / alone if alone > 0.0 else np.nan


def _best_alone(points: Sequence[Point]) -> dict[tuple[int, int], float]:
    """The smaller of the errors of LSTD alone and TD alone, by seed and agent."""
    best: dict[tuple[int, int], float] = {}
    for point in points:
        if point.method in (LSTD_ALONE, TD_ALONE):
            key = point.seed, point.agent
            best[key] = min(best.get(key, np.inf), point.value_error)
    return best


def worse_than_alone(points: Sequence[Point]) -> tuple[int, int]:
    """On how many sites the joint method ends with a larger error than the best alone, and of how many; all seeds.

    Args:
        points: also those of each agent.
    """
    last = max((point.rounds for point in points), default=0)
    ends = [point for point in points if point.agent != WHOLE_FLEET and point.rounds == last]
    alone, joint = _best_alone(ends), [point for point in ends if point.method == JOINT]
    return sum(point.value_error > alone[point.seed, point.agent] for point in joint), len(joint)


def document(
    spec: RunSpecification,
    seeds: Sequence[int],
    found: Sequence[Summary],
    sites: tuple[int, int],
    *,
    held_out: bool = False,
) -> dict[str, Any]:
    """`comparison.json`; `sites` is that of `worse_than_alone`, `held_out` whether held-out data have judged."""
    return {
        "workload": spec.workload,
        "agents": spec.agents,
        "rounds": spec.rounds,
        "steps_per_agent": spec.rounds * spec.method.steps_per_round,
        "feature_dim": spec.feature_dim,
        "rank": spec.rank,
        "seeds": list(seeds),
        "confidence": CONFIDENCE,
        "held_out": held_out,
        "sites_compared": sites[1],
        "sites_worse_than_alone": sites[0],
        "methods": [
            {
                "method": summary.method,
                "value_error": known(summary.value_error),
                "low": summary.low,
                "high": summary.high,
                "ratio": known(summary.ratio),
                "bytes_per_agent_and_round": summary.bytes_per_round,
            }
            for summary in found
        ],
    }
