"""Tasks and the points that playing them gives."""

import dataclasses

import numpy as np
import pytest

from cospan.experiments.methods.catalogue import ComparedMethod, default_methods
from cospan.experiments.methods.fleet_variants import SIZES
from cospan.experiments.runner import WHOLE_FLEET, Task, finals, run_task
from cospan.wire.errors import InvalidValueError

D, R, L, AGENTS = 6, 2, 5, 3
TINY = Task(seed=1, workload="synthetic", methods=tuple(default_methods()), agents=4, rounds=12, steps_per_round=L)


# Statistics -----------------------------------------------------------------------------------------------------


def test_points_are_those_of_the_best_variant_and_end_with_the_last_round() -> None:
    both = ComparedMethod("joint", "joint", "paper", {"basis_step": [0.1, 1e6]})
    one = ComparedMethod("one", "joint", "paper", {"basis_step": 0.1})
    result = run_task(dataclasses.replace(TINY, methods=(both, one), each_agent=True, counted=(0, 2)))
    ends = {p.method: p.value_error for p in finals(result.points)}
    assert ends["joint"] <= ends["one"]
    assert set(result.basis_sha256) == {"one"}
    assert {p.agent for p in result.points} == {WHOLE_FLEET, 0, 2}
    last = [p for p in result.points if (p.method, p.rounds) == ("one", 12)]
    assert last[0].value_error == pytest.approx(np.median([p.value_error for p in last[1:]]))
    assert all(0.0 <= (p.subspace_squared or 0.0) <= SIZES.rank for p in result.points)


def test_a_rank_above_d_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="rank is 21; it must be 1 to feature_dim = 20"):
        run_task(dataclasses.replace(TINY, rank=21))
