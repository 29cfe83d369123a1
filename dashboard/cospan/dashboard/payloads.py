"""What a browser is sent: the state of a run as values that JSON can hold."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.core.specification import RunSpecification
from cospan.dashboard.rank_spectrum import Spectrum
from cospan.dashboard.series import COLUMNS, RoundSeries
from cospan.wire.messages import AgentReport, RunPhase, RunReport

AGENT_COLUMNS = (
    "id", "phase", "awaited", "last_round", "td_error", "reconnects", "rejected", "silent", "counted", "absent",
    "outliers", "gone_in_round", "cause", "value_error",
)  # fmt: skip
"""What a row of an agent is, in this order."""
_MOST_ROWS, _MOST_COLUMNS = 160, 64
_NAMED = 5


def run_of(report: RunReport, round_times: tuple[float, float] | None) -> dict[str, Any]:
    """Where a run stands."""
    spec, stamp = report.specification, report.stamp
    waiting = sorted(agent.agent_id for agent in report.agents if agent.awaited)
    return {
        **run_identity(spec, stamp.run_id),
        "incarnation": stamp.incarnation,
        "round": stamp.round,
        "durable": stamp.durable_round,
        "phase": report.phase.value,
        "phase_seconds": round(report.phase_seconds, 1),
        "rounds_per_second": _digits(report.rounds_per_second),
        "round_times": None if round_times is None else [_digits(seconds) for seconds in round_times],
        "waiting": {"count": len(waiting), "names": waiting[:_NAMED]},
        "finish_cause": report.finish_cause.value if report.finish_cause else None,
        "live": report.phase is not RunPhase.FINISHED,
    }


def run_identity(spec: RunSpecification, run_id: str) -> dict[str, Any]:
    """What a run is, from its beginning to its end."""
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
        "aggregation": method.aggregation.value,
        "participation": spec.participation.value,
    }


def agent_row(agent: AgentReport, rejected: int | None, value_error: float | None = None) -> list[Any]:
    """An agent, in the order of `AGENT_COLUMNS`; whole seconds of silence."""
    return [
        agent.agent_id,
        agent.phase.value,
        int(agent.awaited),
        agent.last_round,
        _digits(agent.td_error),
        agent.reconnects,
        rejected,
        round(agent.seconds_since_last_message),
        agent.rounds_counted,
        agent.absent_rounds,
        agent.outlier_rounds,
        agent.gone_in_round,
        agent.gone_cause,
        _digits(value_error),
    ]


def changed_rows(rows: Sequence[list[Any]], known: Mapping[str, list[Any]]) -> list[list[Any]]:
    """Those that a browser that knows `known` lacks."""
    return [row for row in rows if known.get(row[0]) != row]


def series_of(series: RoundSeries, start: int = 0) -> dict[str, Any]:
    """The points from `start` on; the browser keeps what it has before them."""
    return {
        "columns": COLUMNS,
        "stride": series.stride,
        "start": start,
        "points": [point.as_row() for point in series.points[start:]],
    }


def heat_map(basis: Float[np.ndarray, "d r"]) -> dict[str, Any]:
    """B in at most 160 × 64 cells: each holds the entry of largest size among those that it stands for."""
    d, r = basis.shape
    rows, columns = _strides(d, _MOST_ROWS), _strides(r, _MOST_COLUMNS)
    cells = [
        [_extreme(basis[top : top + rows, left : left + columns]) for left in range(0, r, columns)]
        for top in range(0, d, rows)
    ]
    return {"rows": d, "columns": r, "row_stride": rows, "column_stride": columns, "cells": cells}


def spectrum_values(spectrum: Spectrum | None) -> dict[str, Any] | None:
    """The spectrum of the heads; None where nobody sends what it is made of."""
    if spectrum is None:
        return None
    return {
        "shares": [_digits(share) for share in spectrum.shares],
        "agents": spectrum.agents,
        "verdict": spectrum.verdict,
        "sentence": spectrum.sentence,
    }


def _strides(length: int, most: int) -> int:
    return -(-length // most)


def _extreme(block: Float[np.ndarray, "a b"]) -> float:
    return round(float(block.flat[int(np.abs(block).argmax())]), 3)


def _digits(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
