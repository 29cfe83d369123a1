"""Judging by held-out transitions: near the truth where that is known, and of the same order."""

from dataclasses import replace

import numpy as np
import pytest

from cospan.client.workload import Site
from cospan.client.workloads.queues import make_site, workload
from cospan.experiments.comparison import summaries, worse_than_alone
from cospan.experiments.held_out_judge import HeldOutJudge, judge_of
from cospan.experiments.methods.catalogue import default_methods
from cospan.experiments.runner import Task, references_of, run_task
from cospan.wire.errors import InvalidValueError


def without_truth(index: int, seed: int) -> Site:
    return replace(make_site(index, seed), reference=None)


def unknown_queues():  # type: ignore[no-untyped-def]
    return replace(workload, make_site=without_truth, make_fleet=None, fleet_basis=None)


def test_its_errors_are_those_against_the_truth_up_to_noise() -> None:
    found = []
    for index in range(6):
        truth = make_site(index, 9001).reference
        assert truth is not None
        judge = judge_of(unknown_queues(), index, 9001, rounds=150, steps_per_round=20)
        tried = np.stack([truth.weights, 0.5 * truth.weights, 0.0 * truth.weights])
        found.append(judge.value_errors(tried))
    assert np.mean(found, axis=0) == pytest.approx([0.0, 0.25, 1.0], abs=0.03)
    assert np.std([each[0] for each in found]) < 0.05


def test_without_noise_it_is_exact_and_of_nothing_it_says_nothing() -> None:
    judge = HeldOutJudge(np.array([1.0, 2.0]), np.eye(2), 0.0)
    np.testing.assert_allclose(judge.value_errors(np.array([[1.0, 2.0], [0.0, 0.0]])), [0.0, 1.0])
    assert np.isnan(HeldOutJudge(np.zeros(2), np.eye(2), 1.0).value_errors(np.ones((1, 2)))).all()


def test_methods_are_compared_where_nothing_is_known_to_be_true() -> None:
    task = Task(9001, unknown_queues, tuple(default_methods({})), 4, 60, rank=2, each_agent=True, held_out=True)
    points = list(run_task(task).points)
    order = [each.method for each in summaries([point for point in points if point.agent == -1])]
    assert order.index("joint") < order.index("TD alone")
    worse, compared = worse_than_alone(points)
    assert 0 <= worse < compared == 4
    with pytest.raises(InvalidValueError, match="have no reference solution"):
        references_of([without_truth(0, 1)], "queues")
    with pytest.raises(InvalidValueError, match="have no reference solution"):
        run_task(replace(task, held_out=False))
