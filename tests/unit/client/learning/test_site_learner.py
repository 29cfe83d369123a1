"""An agent that is started again: what it learns and plays is what it would have, to the last bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import ring_site

from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.files.result_file import contents, load_result, resume, save_result
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.workloads import BUILT_IN
from cospan.core.aggregation.basis_update import initial_head_covariance
from cospan.core.linalg.matrices import to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import PRESETS
from cospan.core.specification import RunSpecification
from cospan.wire.errors import RunFileError
from cospan.wire.files.npz import load_npz, save_npz

FIRST, ALL = 4, 9
"""Rounds until the file is written, and in all."""


def spec_of(workload: str, preset: str = "practical", warm_up: int = 0) -> RunSpecification:
    site = make_site(load_workload(workload), 1, 5)
    return RunSpecification(
        workload=workload,
        feature_dim=site.features.dim,
        feature_fingerprint=site.features.fingerprint,
        rank=2,
        agents=2,
        rounds=ALL,
        seed=5,
        method=replace(PRESETS[preset](7), warm_up_rounds=warm_up),
    )


def learner_of(spec: RunSpecification, first_round: int = 0, *, with_baseline: bool = True) -> SiteLearner:
    site = make_site(load_workload(spec.workload), 1, spec.seed)
    return SiteLearner(site, spec, name="site-1", index=1, first_round=first_round, with_baseline=with_baseline)


def learn(learner: SiteLearner, *rounds: int) -> list[bytes]:
    """Learns these rounds, each at a basis of its own; the gradients."""
    spec = learner.specification
    bases = (random_basis(spec.feature_dim, spec.rank, np.random.default_rng(number)) for number in rounds)
    covariance = initial_head_covariance(spec.method, spec.rank)
    uploads = [learner.learn(number, basis, covariance) for number, basis in zip(rounds, bases, strict=True)]
    return [to_dense(upload.contribution.gradient).tobytes() for upload in uploads]


def bits(learner: SiteLearner) -> dict[str, Any]:
    """All that a learner's file says of it."""
    named = ((name, np.asarray(value)) for name, value in contents(learner, run_id="run-1").items())
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in named}


@pytest.mark.parametrize("workload", [*BUILT_IN, "cospan.client.workloads.microgrids_finer:d47"])
@pytest.mark.parametrize(("preset", "warm_up"), [*((preset, 0) for preset in PRESETS), ("full-history", 6)])
def test_a_learner_and_its_chain_go_on_bit_for_bit(
    tmp_path: Path, workload: str, preset: str, warm_up: int
) -> None:
    spec = spec_of(workload, preset, warm_up)
    whole, first, second = learner_of(spec), learner_of(spec), learner_of(spec, first_round=FIRST)
    learn(whole, *range(FIRST))
    expected = learn(whole, *range(FIRST, ALL))
    learn(first, *range(FIRST))
    save_result(tmp_path / "a.npz", first, run_id="run-1")
    assert resume(second, tmp_path / "a.npz", run_id="run-1") == ""
    assert (second.rounds, second.last_round) == (FIRST, FIRST - 1)
    assert bits(second) == bits(first), "right after it has gone on, everything is as it was"
    assert learn(second, *range(FIRST, ALL)) == expected
    assert bits(second) == bits(whole)


def ring_learner(first_round: int = 0) -> SiteLearner:
    """Its environment cannot save its state."""
    spec = replace(spec_of("queues"), feature_dim=4, feature_fingerprint="map-1")
    return SiteLearner(ring_site(1, 1), spec, name="site-1", index=1, first_round=first_round)


def test_a_thinned_trace_is_gone_on_with(tmp_path: Path) -> None:
    first, again = ring_learner(), ring_learner()
    first.learning_curve.most = again.learning_curve.most = 4
    learn(first, *range(9))
    save_result(tmp_path / "a.npz", first, run_id="run-1")
    resume(again, tmp_path / "a.npz", run_id="run-1")
    assert (
        (again.learning_curve.round, again.learning_curve.every)
        == (first.learning_curve.round, first.learning_curve.every)
        == ([0, 4, 8], 4)
    )
    learn(again, 9, 10)
    assert again.learning_curve.round == [0, 4, 8, 10]
    assert len(again.learning_curve.value_error) == len(again.learning_curve.td_alone_error) == 4


def test_a_learner_whose_environment_cannot_save_its_state_never_sees_the_same_data_twice(tmp_path: Path) -> None:
    first, again = ring_learner(), ring_learner()
    gradients = learn(first, 0, 1, 2)
    save_result(tmp_path / "a.npz", first, run_id="run-1")
    assert load_result(tmp_path / "a.npz").text("chain_state") == ""
    assert "was not saved" in resume(again, tmp_path / "a.npz", run_id="run-1")
    assert again.mean_reward == first.mean_reward
    before = first.source.reward_sum
    learn(again, 0, 1, 2)
    assert again.source.steps == 2 * first.source.steps
    assert again.learning_curve.round == [0, 1, 2, 0, 1, 2]
    fresh = ring_learner()
    assert learn(fresh, 0, 1, 2) == gradients
    rewards = again.source.reward_sum - before
    assert rewards != fresh.source.reward_sum


@pytest.mark.parametrize("before", [True, False])
def test_a_baseline_may_come_and_go(tmp_path: Path, before: bool) -> None:
    """The rounds without it are unknown in its trace."""
    spec = spec_of("queues")
    first, again = learner_of(spec, with_baseline=before), learner_of(spec, with_baseline=not before)
    learn(first, 0, 1)
    save_result(tmp_path / "a.npz", first, run_id="run-1")
    resume(again, tmp_path / "a.npz", run_id="run-1")
    learn(again, 2)
    save_result(tmp_path / "a.npz", again, run_id="run-1")
    errors = load_result(tmp_path / "a.npz").array("curve_td_alone_error")
    assert errors.shape == (3, 0 if before else 3)
    assert np.isfinite(errors).tolist() == ([[]] * 3 if before else [[False] * 3, [False] * 3, [True] * 3])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"curve_gain_estimate": np.zeros(3)}, "different lengths; the file is damaged"),
        ({"curve_td_alone_error": np.zeros((1, 3))}, "different lengths; the file is damaged"),
        ({"last_round": "four"}, "'last_round' in the result of an agent is no number"),
        ({"chain_state": None}, "lacks 'chain_state'"),
    ],
)
def test_a_damaged_file_changes_nothing(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    spec, path = spec_of("queues"), tmp_path / "a.npz"
    first, again = learner_of(spec), learner_of(spec)
    learn(first, 0, 1)
    save_result(path, first, run_id="run-1")
    values = {**load_npz(path, "a test"), **changes}
    save_npz(path, **{name: value for name, value in values.items() if value is not None})
    before = bits(again)
    with pytest.raises(RunFileError, match=text):
        resume(again, path, run_id="run-1")
    assert bits(again) == before


def test_a_file_whose_chain_is_damaged_keeps_what_was_learnt(tmp_path: Path) -> None:
    spec, path = spec_of("queues"), tmp_path / "a.npz"
    first, again = learner_of(spec), learner_of(spec)
    learn(first, 0, 1)
    save_result(path, first, run_id="run-1")
    save_npz(path, **{**load_npz(path, "a test"), "chain_state": '{"array": 99}'})
    assert "cannot be loaded (ValueError" in resume(again, path, run_id="run-1")
    assert again.state.head.tobytes() == first.state.head.tobytes()
    learn(again, 2)
