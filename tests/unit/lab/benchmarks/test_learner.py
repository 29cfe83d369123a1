"""The benchmark of the learner, at tiny size, and its plain reference."""

import numpy as np
from unit.lab.benchmarks.test_orthonormalise import checked, quiet

from cospan.benchmarks import learner
from cospan.core.learning.learner import learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.linalg.matrices import to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import HeadUpdate, Method


def test_learner() -> None:
    chosen = [learner.Case("queues", "practical", 3), learner.Case("none", "compact", 2, (12, 2))]
    report = learner.benchmark(chosen, 0.0, quiet)
    checked(report)
    assert [row["feature_dim"] for row in report.rows] == [43, 12]
    assert [row["agent_per_second"] is None for row in report.rows] == [False, True]
    assert len(learner.cases()) == 2 * 4 * 3 + 3 * 3


def test_the_plain_reference_does_what_the_learner_does() -> None:
    """With head updates at every step, no ball, no decay: the same head, gain and gradient."""
    rng = np.random.default_rng(2)
    basis = random_basis(12, 3, rng)
    trajectory = Trajectory(rng.standard_normal((31, 12)) / 7.0, rng.standard_normal(30))
    method = Method(30, HeadUpdate.EVERY_STEP, head_step=0.1, gain_step=0.01, head_radius=1e9, basis_step=0.1)
    expected = learn_round(LearnerState.initial(3), basis, trajectory, method)
    head, gain, gradient = learner.plain_td(basis, trajectory)
    np.testing.assert_allclose(head, expected.state.head, rtol=1e-12)
    np.testing.assert_allclose(gain, expected.state.gain_estimate, rtol=1e-12)
    np.testing.assert_allclose(gradient, to_dense(expected.gradient), atol=1e-13)
