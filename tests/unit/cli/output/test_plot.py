"""The picture of a run is drawn whatever is known of it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cospan.cli.output.plot import draw_convergence, quartiles
from cospan.cli.run_folder.progress_log import RoundRow
from cospan.client.files.agent_result import AgentResult
from cospan.core.method import practical
from cospan.core.specification import RunSpecification

SPEC = RunSpecification("toy", 3, 2, 3, 100, 7, practical(5))
ROW = RoundRow(0, 0.1, 3, 0.5, 1e-16, 0.25)


def agent(rounds: int, error: float = 0.5, steps: int = 3) -> AgentResult:
    values: dict[str, Any] = {
        "curve_every": np.array(1),
        "curve_round": np.arange(rounds),
        "curve_value_error": np.full(rounds, error),
        "curve_lstd_alone_error": np.where(np.arange(rounds) % 3 == 0, 1.5 * error, np.nan),
        "curve_td_alone_error": np.full((rounds, steps), 2.0 * error),
        "curve_gain_estimate": np.linspace(0.0, -1.0, rounds),
    }
    return AgentResult(values)


@pytest.mark.parametrize(
    ("rounds", "agents"),
    [
        (30, [agent(30), agent(12, 1e-9)]),
        (1, [agent(1)]),
        (4000, [agent(4000)]),
        (30, [agent(30, math.nan)]),
        (30, [agent(30, 0.1, steps=0)]),
        (2, []),
    ],
    ids=["usual", "one round", "long", "unknown truth", "no baseline", "no agent left"],
)
def test_a_picture_is_drawn(rounds: int, agents: list[AgentResult], tmp_path: Path) -> None:
    movement = [0.0, *np.geomspace(1.0, 1e-3, rounds)]
    rows = [replace(ROW, round=number, basis_movement=float(movement[number])) for number in range(rounds)]
    assert draw_convergence(tmp_path / "convergence.png", SPEC, rows, agents) == ""
    assert (tmp_path / "convergence.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["convergence.png"]


def test_quartiles_by_round() -> None:
    band = quartiles(
        [np.array([0, 2]), np.array([2]), np.array([2])], [np.array([1.0, 1.0]), np.array([2.0]), np.array([3.0])]
    )
    assert band is not None
    assert band.rounds.tolist() == [0, 2]
    assert (band.low.tolist(), band.middle.tolist(), band.high.tolist()) == ([1.0, 1.5], [1.0, 2.0], [1.0, 2.5])
    assert quartiles([np.array([0])], [np.array([math.nan])]) is None
    assert quartiles([np.array([], dtype=int)], [np.array([])]) is None
