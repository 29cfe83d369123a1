"""A learner whose policy may change: its trials, what it drops, what it says, and its file in every phase."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from cospan.client.agent import Agent
from cospan.client.files import improving_group_file
from cospan.client.files.result_file import resume, save_result
from cospan.client.learning.improving_group import ImprovingGroup
from cospan.client.learning.improving_learner import UNIMPROVED, ImprovingLearner
from cospan.client.learning.run_config import specify
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.value_function import ValueFunction
from cospan.client.workload import Site, Workload
from cospan.client.workloads import microgrids, queues
from cospan.core.linalg.matrices import to_dense
from cospan.core.specification import RunSpecification
from cospan.wire.errors import InvalidValueError, RunFileError, WorkloadBehaviourError
from cospan.wire.files.npz import load_npz, save_npz
from cospan.wire.messages import GradientUpload

SEED, EVALUATION, TRIAL = 5, 12, 24
STEP = EVALUATION + TRIAL
SPEC = specify("queues", agents=3, seed=SEED, rank=2, improve=2, evaluation_rounds=EVALUATION, trial_rounds=TRIAL)
BASIS, COVARIANCE = SPEC.initial_basis(), np.eye(2)


def learner(
    index: int = 1, spec: RunSpecification = SPEC, workload: Workload = queues.workload
) -> ImprovingLearner:
    site = workload.make_site(index, SEED)
    return ImprovingLearner(site, spec, name=f"site-{index}", index=index, with_baseline=False)


def learn(made: ImprovingLearner, first: int, last: int, *without: int) -> list[GradientUpload]:
    """Rounds from `first` on, below `last`, without some that it misses."""
    spec = made.specification
    basis, covariance = spec.initial_basis(), np.eye(spec.rank)
    return [made.learn(number, basis, covariance) for number in range(first, last) if number not in without]


def bits(made: ImprovingLearner) -> tuple[Any, ...]:
    policy = made.improver.policy
    assert policy is not None
    held = b"" if policy.weights is None else policy.weights.tobytes()
    return made.weights.mean.tobytes(), held, made.rounds, made.mean_reward, made.improver.decisions


@pytest.fixture(scope="module")
def whole() -> tuple[ImprovingLearner, list[GradientUpload]]:
    made = learner()
    return made, learn(made, 0, SPEC.rounds)


def test_a_trial_sends_nothing_and_a_taken_policy_drops_what_was_learnt_of_the_old_one(
    whole: tuple[ImprovingLearner, list[GradientUpload]],
) -> None:
    made, uploads = whole
    for number, upload in enumerate(uploads):
        is_zero = not to_dense(upload.contribution.gradient).any()
        assert is_zero == SPEC.schedule.is_trial(number), number
        assert (upload.contribution.pooled is None) == (not SPEC.sends_pooled_in(number))
    taken = [each.step for each in made.improver.decisions if each.taken]
    assert taken == [0], "the second step of this queue proves nothing"
    assert [number for number, upload in enumerate(uploads) if upload.improved] == [STEP - 1, 2 * STEP - 1]
    steps = SPEC.method.steps_per_round
    assert made.state.steps == 2 * EVALUATION * steps, "of the second step and of the last evaluation"
    assert made.rounds == SPEC.rounds
    assert made.source.steps == SPEC.rounds * steps


@pytest.mark.parametrize("cut", [EVALUATION + 5, STEP, STEP + EVALUATION + 1])
def test_a_file_of_any_phase_continues_with_the_same_bits(
    cut: int, whole: tuple[ImprovingLearner, list[GradientUpload]], tmp_path: Path
) -> None:
    path, first, second = tmp_path / "site-1.npz", learner(), learner()
    learn(first, 0, cut)
    save_result(path, first, run_id="run")
    assert resume(second, path, "run") == ""
    assert second.rounds == cut
    learn(second, cut, SPEC.rounds)
    assert bits(second) == bits(whole[0])


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("policy_weights", np.zeros(3), "policy_weights"),
        ("policy_caution", np.float64(-1.0), "policy_caution"),
        ("improvement_log_rewards", np.zeros(3), "different numbers"),
        ("improvement_decisions", np.array("[1]"), "no list of decisions"),
        ("improvement_rounds", np.int64(-1), "improvement_rounds"),
    ],
)
def test_a_damaged_file_is_refused_and_changes_nothing(
    name: str, value: np.ndarray, words: str, whole: tuple[ImprovingLearner, list[GradientUpload]], tmp_path: Path
) -> None:
    path = tmp_path / "site-1.npz"
    save_result(path, whole[0], run_id="run")
    values = load_npz(path, "a result")
    save_npz(path, **{**values, name: value})
    fresh = learner()
    with pytest.raises(RunFileError, match=words):
        resume(fresh, path, "run")
    assert fresh.rounds == 0
    assert not fresh.improver.decisions


def test_rounds_that_were_missed_shorten_a_trial_and_its_end_is_made_up_for() -> None:
    made = learner()
    learn(made, 0, STEP, STEP - 1)
    assert made.improver.trial is not None
    learn(made, STEP, STEP + 1)
    (decision,) = made.improver.decisions
    assert decision.bound.pairs == 11, "the twelfth pair is not complete"


def test_an_agent_that_joins_within_a_trial_has_nothing_to_try() -> None:
    made = learner()
    learn(made, EVALUATION + 1, STEP)
    (decision,) = made.improver.decisions
    assert not decision.taken
    assert "joined within the step" in decision.reason
    (warning,) = made.warnings
    assert (warning.kind, warning.agent) == (UNIMPROVED, "site-1")


def test_a_site_without_decisions_is_judged_where_its_features_are_the_runs_and_refused_elsewhere() -> None:
    def make_site(index: int, seed: int) -> Site:
        return replace(microgrids.make_site(index, seed), decisions=None)

    grids = replace(microgrids.workload, make_site=make_site)
    spec = specify("microgrids", agents=2, seed=SEED, rank=2, improve=2, evaluation_rounds=3, trial_rounds=2)
    made = learner(1, spec, grids)
    uploads = learn(made, 0, 6)
    learn(made, 6, 10)
    assert len(made.improver.decisions) == 2, "said once, and decided twice"
    assert made.improver.policy is None
    assert [to_dense(upload.contribution.gradient).any() for upload in uploads] == [True] * 3 + [False] * 2 + [True]
    (warning,) = made.warnings
    assert "does not say what its actions lead to" in warning.text
    pairs = replace(queues.workload, make_site=lambda i, s: replace(queues.make_site(i, s), decisions=None))
    with pytest.raises(InvalidValueError, match="does not say what its actions lead to"):
        learner(1, SPEC, pairs)


def test_an_agent_gives_the_policy_that_it_holds(whole: tuple[ImprovingLearner, list[GradientUpload]]) -> None:
    agent = Agent("queues", index=1)
    with pytest.raises(InvalidValueError, match="has learnt nothing yet"):
        _ = agent.policy
    agent.learner = whole[0]
    assert agent.policy is whole[0].improver.policy
    assert {value.action for value in agent.policy.explain(7)} == {0, 1}
    agent.learner = SiteLearner(queues.make_site(1, SEED), SPEC, name="site-1", index=1)
    with pytest.raises(InvalidValueError, match="start the run with --improve"):
        _ = agent.policy


def test_a_file_of_pairs_is_read_as_a_value_function_of_pairs(
    whole: tuple[ImprovingLearner, list[GradientUpload]], tmp_path: Path
) -> None:
    path = tmp_path / "site-1.npz"
    save_result(path, whole[0], run_id="run")
    value = ValueFunction.load(path)
    np.testing.assert_array_equal(value.weights, whole[0].weights.mean)
    assert value.values([(7, 1)]) == queues.ACTION_FEATURES((7, 1)) @ value.weights
    assert value.mean_reward == whole[0].mean_reward


# Groups -------------------------------------------------------------------------------------------------------


def group(count: int = 2, wrap: Callable[[Site], Site] = lambda site: site) -> ImprovingGroup:
    sites = [wrap(queues.make_site(index, SEED)) for index in range(count)]
    names = [f"site-{index}" for index in range(count)]
    return ImprovingGroup(sites, SPEC, names=names, indices=range(count))


def test_a_group_has_the_bits_of_its_members_alone_and_its_file_continues_them(
    whole: tuple[ImprovingLearner, list[GradientUpload]], tmp_path: Path
) -> None:
    first, path = group(), tmp_path / "group-0..1.npz"
    for number in range(EVALUATION + 5):
        first.learn(number, BASIS, COVARIANCE)
    save_npz(path, **improving_group_file.contents(first, "run"))
    second = group()
    assert improving_group_file.resume(second, path, "run") == ""
    assert second.last_round == EVALUATION + 4
    uploads = [second.learn(number, BASIS, COVARIANCE) for number in range(EVALUATION + 5, SPEC.rounds)]
    assert "site-1" in uploads[STEP - EVALUATION - 6].improved
    assert bits(second.members[1]) == bits(whole[0])
    found = improving_group_file.member_of(path, "site-1")
    assert found is not None
    assert found.text("agent_id") == "site-1"
    assert ValueFunction.load(path, agent="site-1").agent_id == "site-1"
    with pytest.raises(RunFileError, match="name one of its agents"):
        ValueFunction.load(path)
    with pytest.raises(RunFileError, match="saved in another run"):
        improving_group_file.resume(group(), path, "another")


def test_a_member_that_fails_leaves_and_the_others_go_on() -> None:
    class Fails(gymnasium.Wrapper[Any, Any, Any, Any]):
        steps = 0

        def step(self, action: Any) -> Any:
            self.steps += 1
            if self.steps > 50:
                raise RuntimeError("the queue is closed")
            return super().step(action)

    made = group(2, lambda site: replace(site, env=Fails(site.env)) if site.label.startswith("queue 0") else site)
    gone: list[tuple[str, str]] = []
    made.on_failure.append(lambda member, why: gone.append((member.name, why)))
    uploads = [made.learn(number, BASIS, COVARIANCE) for number in range(4)]
    assert made.names == ("site-1",)
    assert [upload.contribution.weight for upload in uploads] == [2.0, 2.0, 1.0, 1.0]
    ((name, why),) = gone
    assert name == "site-0"
    assert "the queue is closed" in why
    made.members[0].site.env.close()
    lone = group(1, lambda site: replace(site, env=Fails(site.env)))
    lone.learn(0, BASIS, COVARIANCE)
    lone.learn(1, BASIS, COVARIANCE)
    with pytest.raises(WorkloadBehaviourError, match="the queue is closed"):
        lone.learn(2, BASIS, COVARIANCE)
