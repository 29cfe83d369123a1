"""The state of a run as JSON values for browsers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.core.specification import RunSpecification
from cospan.dashboard.analysis.facts import Answer
from cospan.dashboard.rank_spectrum import Spectrum
from cospan.dashboard.series import COLUMNS, RoundSeries, rounded
from cospan.wire.messages import AgentReport, RunPhase, RunReport

AGENT_COLUMNS = (
    "id", "phase", "awaited", "last_round", "td_error", "reconnects", "rejected", "silent", "counted", "absent",
    "outliers", "gone_in_round", "cause", "bounded", "improved", "arrives",
)  # fmt: skip
"""Columns of an agent's row."""
_MOST_ROWS, _MOST_COLUMNS = 160, 64
_NAMED = 5


def run_of(report: RunReport, round_times: tuple[float, float] | None) -> dict[str, Any]:
    """Phase and progress of a run."""
    spec, stamp = report.specification, report.stamp
    waiting = sorted(agent.agent_id for agent in report.agents if agent.awaited)
    return {
        **run_identity(spec, stamp.run_id),
        "privacy": None if report.spent is None else str(report.spent),
        "incarnation": stamp.incarnation,
        "round": stamp.round,
        "durable": stamp.durable_round,
        "phase": report.phase.value,
        "phase_seconds": round(report.phase_seconds, 1),
        "rounds_per_second": rounded(report.rounds_per_second),
        "round_times": None if round_times is None else [rounded(seconds) for seconds in round_times],
        "waiting": {"count": len(waiting), "names": waiting[:_NAMED]},
        "finish_cause": report.finish_cause.value if report.finish_cause else None,
        "live": report.phase is not RunPhase.FINISHED,
    }


def run_identity(spec: RunSpecification, run_id: str) -> dict[str, Any]:
    """The parts of a run that do not change."""
    method = spec.method
    return {
        "id": run_id,
        "workload": spec.workload,
        "agents": spec.agents,
        "rounds": spec.rounds,
        "seed": spec.seed,
        "feature_dim": spec.feature_dim,
        "rank": spec.rank,
        "steps_per_round": method.steps_per_round,
        "head_update": method.head_update.value,
        "aggregation": method.aggregation.value
        + (", secure sums" if spec.secure_sums else "")
        + (f", ε = {spec.dp_epsilon:g} (δ {spec.dp_delta:g})" if spec.is_private else ""),
        "participation": spec.participation.value,
    }


def agent_row(agent: AgentReport, rejected: int | None, arrives: float | None = None) -> list[Any]:
    """The row of an agent, in the order of `AGENT_COLUMNS`; silence in whole seconds, arrivals with two digits."""
    return [
        agent.agent_id,
        agent.phase.value,
        int(agent.awaited),
        agent.last_round,
        rounded(agent.td_error),
        agent.reconnects,
        rejected,
        round(agent.seconds_since_last_message),
        agent.rounds_counted,
        agent.absent_rounds,
        agent.outlier_rounds,
        agent.gone_in_round,
        agent.gone_cause,
        int(agent.head_bounded),
        1 if agent.policy_improved else None,
        None if arrives is None else float(f"{arrives:.2g}"),
    ]


def changed_rows(rows: Sequence[list[Any]], known: Mapping[str, list[Any]]) -> list[list[Any]]:
    """The rows that differ from `known`."""
    return [row for row in rows if known.get(row[0]) != row]


def series_of(series: RoundSeries, start: int = 0) -> dict[str, Any]:
    """The points from index `start` on; the browser keeps the ones before."""
    return {
        "columns": COLUMNS,
        "stride": series.stride,
        "start": start,
        "points": [point.as_row() for point in series.points[start:]],
    }


def answer_values(answers: Iterable[Answer]) -> list[dict[str, Any]]:
    """The answers to an operator's questions."""
    return [asdict(answer) for answer in answers]


def heat_map(basis: Float[np.ndarray, "d r"]) -> dict[str, Any]:
    """B in at most 160 × 64 cells; each is the entry of largest magnitude in its block."""
    d, r = basis.shape
    rows, columns = _strides(d, _MOST_ROWS), _strides(r, _MOST_COLUMNS)
    cells = [
        [_extreme(basis[top : top + rows, left : left + columns]) for left in range(0, r, columns)]
        for top in range(0, d, rows)
    ]
    return {"rows": d, "columns": r, "row_stride": rows, "column_stride": columns, "cells": cells}


def spectrum_values(spectrum: Spectrum | None) -> dict[str, Any] | None:
    """The spectrum of the heads; None if it is unknown."""
    if spectrum is None:
        return None
    return {
        "shares": [rounded(share) for share in spectrum.shares],
        "in_use": spectrum.in_use,
        "source": spectrum.source,
        "verdict": spectrum.verdict,
        "sentence": spectrum.sentence,
    }


def _strides(length: int, most: int) -> int:
    return -(-length // most)


def _extreme(block: Float[np.ndarray, "a b"]) -> float:
    return round(float(block.flat[int(np.abs(block).argmax())]), 3)
