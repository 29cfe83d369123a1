"""Held-out errors and feature tests of a learner: in groups, after a restart, and with the workload's parts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cospan.client.environment.workload_loader import make_site
from cospan.client.files.agent_result import AgentResult
from cospan.client.files.quality_values import feature_gaps, held_out_steps, site_errors
from cospan.client.files.result_file import contents, resume, save_result
from cospan.client.learning.run_config import specify
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.workload import Workload
from cospan.client.workloads import microgrids, queues
from cospan.core.linalg.subspace import random_basis
from cospan.core.quality.held_out import NAMES
from cospan.simulation import Fleet

ROUNDS = 40


def learner_of(workload: Workload, **constants: Any) -> SiteLearner:
    spec = specify(workload, agents=2, rounds=ROUNDS, seed=9001, **constants)
    return SiteLearner(make_site(workload, 0, 9001), spec, name="site-0", index=0)


def learn(learner: SiteLearner, first: int, before: int) -> None:
    spec = learner.specification
    basis = random_basis(spec.feature_dim, spec.rank, np.random.default_rng(1))
    covariance = np.eye(spec.rank) if spec.method.has_head_covariance else None
    for number in range(first, before):
        learner.learn(number, basis, covariance)


@pytest.mark.parametrize("preset", ["practical", "full-history", "paper"])
def test_a_restarted_learner_has_the_bits_of_one_that_was_not(preset: str, tmp_path: Path) -> None:
    whole, broken, again = (learner_of(queues.workload, preset=preset) for _ in range(3))
    learn(whole, 0, ROUNDS)
    learn(broken, 0, 23)
    save_result(tmp_path / "site-0.npz", broken, run_id="run")
    assert resume(again, tmp_path / "site-0.npz", "run") == ""
    learn(again, 23, ROUNDS)
    ours, theirs = contents(again, "run"), contents(whole, "run")
    names = [name for name in theirs if name.startswith(("quality_", "held_out_", "feature_tests"))]
    assert {"quality_1_moments", "held_out_joint"} < set(names)
    for name in names:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    found = site_errors(AgentResult({key: np.asarray(value) for key, value in theirs.items()}))
    assert found is not None
    assert found.blocks >= 6


def test_agents_of_a_group_have_the_errors_that_they_have_alone() -> None:
    single, group = (
        Fleet("queues", agents=4, rounds=ROUNDS, seed=9001, groups=groups, baseline=True) for groups in (None, 1)
    )
    alone, together = single.run(progress=False), group.run(progress=False)
    for one, other in zip(alone.held_out, together.held_out, strict=True):
        assert one is not None
        assert other is not None
        np.testing.assert_allclose(
            [getattr(one, name) for name in NAMES], [getattr(other, name) for name in NAMES], rtol=1e-6
        )
    whole = alone.held_out_error
    assert whole is not None
    assert whole.joint < whole.lstd_alone < whole.td_alone < whole.mean_only  # type: ignore[operator]
    truth = whole.advantage, alone.lstd_alone_error - alone.value_error
    assert min(truth) > 0.0


def test_declared_parts_and_what_the_features_lack_are_in_the_file() -> None:
    """The hours between the knots of the features, which `microgrids` interpolates."""
    learner = learner_of(microgrids.workload)
    learn(learner, 0, ROUNDS)
    values = {name: np.asarray(value) for name, value in contents(learner, "run").items()}
    result = AgentResult(values)
    assert bool(values["held_out_within"])
    assert values["observation_parts"].tolist() == [f"observation[{place}]" for place in range(5)]
    assert held_out_steps(result) == (528, 432)
    values["feature_tests"] = np.stack([np.append(np.full(10, 0.5), 9.0), np.full(11, 0.25)])
    assert feature_gaps(result) == {"time modulo 168 steps": 0.25}
    del values["feature_tests"]
    assert feature_gaps(result) == {}


def test_a_workload_that_says_nothing_is_judged_over_all_states() -> None:
    learner = learner_of(replace(queues.workload, exogenous=None))
    learn(learner, 0, ROUNDS)
    assert not contents(learner, "run")["held_out_within"]
    sums, posterior = learner.lstd_sums, learner.state.posterior
    assert sums is not None
    assert posterior is not None
    mean = sums.traces / sums.steps
    covariance = posterior.second_moment / sums.steps - np.outer(mean, mean)
    np.testing.assert_allclose(learner.quality.metric(sums, posterior), covariance, rtol=1e-12)


def test_without_sums_of_lstd_alone_nothing_is_known() -> None:
    spec = specify(queues.workload, agents=2, rounds=ROUNDS, preset="compact")
    learner = SiteLearner(make_site(queues.workload, 0, 1), spec, name="site-0", index=0, with_baseline=False)
    learn(learner, 0, 12)
    assert np.isnan(learner.held_out().joint)
