"""Single cases of equivariance: whole fleets, a rare reward, constants, weights, and bounds that bind.

`tests/property/test_equivariance.py` draws the units of each agent.
"""

import logging
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from runs import RINGS, States, coin, ring_site, specification

from cospan.client.environment.workload_loader import make_site
from cospan.client.learning.group_blocks import GroupSites
from cospan.client.learning.group_learner import GroupLearner
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.workload import Site, Workload
from cospan.core.aggregation.basis_update import initial_head_covariance
from cospan.core.exact_solutions import (
    differential_value,
    feature_covariance,
    relative_value_error,
    stationary_distribution,
)
from cospan.core.learning.learner import contribution_of, learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.linalg.matrices import FactoredMatrix, to_dense
from cospan.core.linalg.subspace import principal_angle_sine, random_basis
from cospan.core.method import PRESETS, HeadUpdate, Method, compact, full_history, paper, practical
from cospan.experiments.methods.compared_methods import JointFleet
from cospan.simulation import Fleet
from cospan.wire.notes import bound_note

TOLERANCE = 1e-9
OWN = ("practical", "compact", "full-history")
"""Presets in which each agent learns in its own units."""
WITHOUT_PRIOR = [each for each in HeadUpdate if each is not HeadUpdate.POSTERIOR]
"""Those with a ball that heads are projected onto, and with which units are an option."""


# Whole fleets -----------------------------------------------------------------------------------------------------


class OtherRewards(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose rewards are c r + b."""

    def __init__(self, env: gymnasium.Env[Any, Any], factor: float, constant: float) -> None:
        super().__init__(env)
        self._factor, self._constant = factor, constant

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, more = super().step(action)
        return observation, self._factor * float(reward) + self._constant, terminated, truncated, more


class OtherFeatures(States):
    """The same features times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def batch(self, observations: Any) -> np.ndarray:
        return self._factor * super().batch(observations)


FACTORS, CONSTANTS = (1e-9, 1e12, 3e5, 1.0), (2e-9, -7e14, 0.0, 1e3)


def other_site(index: int, seed: int) -> Site:
    site = ring_site(index, seed)
    env = OtherRewards(site.env, FACTORS[index], CONSTANTS[index])
    return Site(env=env, features=OtherFeatures(1e-12), policy=coin)


OTHERS = Workload(make_site=other_site, name="rings", rank=RINGS.rank, steps_per_round=3)


@pytest.mark.parametrize("preset", OWN)
@pytest.mark.parametrize("groups", [None, 2])
def test_a_fleet_in_other_units_is_equivariant(preset: str, groups: int | None) -> None:
    options: dict[str, Any] = {"agents": 4, "rounds": 12, "preset": preset, "groups": groups, "baseline": False}
    before, after = Fleet(RINGS, **options).run(), Fleet(OTHERS, **options).run()
    assert principal_angle_sine(before.basis, after.basis) <= TOLERANCE
    for index, (one, other) in enumerate(zip(before.agents, after.agents, strict=True)):
        np.testing.assert_allclose(other.weights * 1e-12 / FACTORS[index], one.weights, rtol=1e-8, atol=1e-12)
        assert other.gain == pytest.approx(FACTORS[index] * one.gain + CONSTANTS[index], rel=TOLERANCE)


# One agent's data -------------------------------------------------------------------------------------------------

STATES, L = 8, 50
FEATURES = np.eye(STATES)


def transition(number: int) -> np.ndarray:
    """A ring that is walked in one direction or the other, with a state that is entered once in 100 steps."""
    forward = 0.3 + 0.1 * number
    matrix = np.zeros((STATES, STATES))
    for state in range(STATES - 1):
        matrix[state, (state + 1) % (STATES - 1)] += 0.99 * forward
        matrix[state, (state - 1) % (STATES - 1)] += 0.99 * (1.0 - forward)
        matrix[state, STATES - 1] = 0.01
    matrix[STATES - 1, 0] = 1.0
    return matrix


def walks(rewards: np.ndarray, rounds: int, agents: int = 4) -> list[list[Trajectory]]:
    rng = np.random.default_rng(7)
    steps = [transition(number).cumsum(axis=1) for number in range(agents)]
    states = [0] * agents
    played = []
    for _ in range(rounds):
        row = []
        for number in range(agents):
            path = [states[number]]
            for _ in range(L):
                path.append(min(int(np.searchsorted(steps[number][path[-1]], rng.random())), STATES - 1))
            states[number] = path[-1]
            row.append(Trajectory(FEATURES[path], rewards[path[:-1]]))
        played.append(row)
    return played


def learnt(method: Method, played: list[list[Trajectory]]) -> JointFleet:
    basis = random_basis(played[0][0].features.shape[1], 2, np.random.default_rng(3))
    fleet = JointFleet.initial(method, basis, len(played[0]))
    for row in played:
        fleet = fleet.learning_from(row)
    return fleet


RARE = np.array([0.0, 1.0, 2.0, 3.0, 2.0, 1.0, 0.5, 1e6])


@pytest.mark.parametrize("preset", OWN)
def test_a_rare_reward_of_a_million_is_learnt_and_equivariant(preset: str) -> None:
    """A bound on heads in the unit of the rewards made the value error 0.999."""
    method, played = PRESETS[preset](L), walks(RARE, rounds=50, agents=3)
    fleet = learnt(method, played)
    for number, weights in enumerate(fleet.weights[0]):
        matrix = transition(number)
        covariance = feature_covariance(FEATURES, stationary_distribution(matrix))
        assert relative_value_error(weights, differential_value(matrix, RARE), covariance) < 0.25
    small = learnt(method, [[Trajectory(each.features, 1e-6 * each.rewards) for each in row] for row in played])
    # Curvatures travel in float32: where a last bit differs, the basis of `practical` turns a little otherwise.
    # Most of that is in the constant of the values, which the equations hardly fix and no decision depends on.
    tolerance = 1e-5 if method.has_head_covariance else 1e-9
    scaled, centred = (each - each.mean(axis=-1, keepdims=True) for each in (1e6 * small.weights, fleet.weights))
    np.testing.assert_allclose(scaled, centred, rtol=tolerance, atol=1e3 * tolerance)


@pytest.mark.parametrize("preset", OWN)
@pytest.mark.parametrize("constant", [-(2.0**20), 2.0**30, 2.0**43])
def test_constants_are_equivariant_exactly_where_the_rewards_are_exact(preset: str, constant: float) -> None:
    """Sums hold no digit of the constant, so as long as float64 holds the rewards nothing is lost."""
    method, played = PRESETS[preset](L), walks(np.arange(STATES) / 4.0, rounds=5)
    more = [[Trajectory(each.features, each.rewards + constant) for each in row] for row in played]
    before, after = learnt(method, played), learnt(method, more)
    np.testing.assert_allclose(after.weights, before.weights, rtol=1e-12, atol=1e-13)
    assert principal_angle_sine(before.basis, after.basis) <= 1e-13


@pytest.mark.parametrize("head_update", WITHOUT_PRIOR)
def test_paper_has_no_units_of_its_own(head_update: HeadUpdate) -> None:
    """Nothing is counted from a reference and nothing divided; a group of one is its agent, bit for bit."""
    method = replace(paper(L), head_update=head_update)
    (walk,), basis = walks(RARE / 1e6, rounds=1, agents=1)[0], random_basis(STATES, 2, np.random.default_rng(3))
    outcome = learn_round(replace(LearnerState.initial(2), head=np.ones(2)), basis, walk, method)
    assert outcome.state.rewards.reference == 0.0
    if isinstance(outcome.gradient, FactoredMatrix) and head_update is HeadUpdate.END_OF_ROUND:
        assert outcome.gradient.right[:, 0].tolist() == [1.0, 1.0]
        assert (outcome.head_second_moment == 1.0).all()


@pytest.mark.parametrize("preset", ["compact", "full-history"])
def test_an_uploads_weight_cannot_be_divided_out(preset: str) -> None:
    """G = u vᵀ and W = v vᵀ with one v: W tells nothing that v does not. A group sums the same factors."""
    method, basis = PRESETS[preset](L), random_basis(STATES, 2, np.random.default_rng(3))
    state, group = LearnerState.initial(2), LearnerState.initial(2, 1)
    for (walk,) in walks(RARE, rounds=3, agents=1):
        outcome = learn_round(state, basis, walk, method)
        sent, state = contribution_of(outcome, method), outcome.state
        assert isinstance(sent.gradient, FactoredMatrix)
        right = sent.gradient.right[:, 0]
        np.testing.assert_array_equal(sent.head_second_moment, np.outer(right, right))
        together = learn_round(group, basis, Trajectory(walk.features[None], walk.rewards[None]), method)
        group = together.state
        assert isinstance(together.gradient, FactoredMatrix)
        np.testing.assert_allclose(together.gradient.right[:, 0], right, rtol=1e-10, atol=1e-15)
        np.testing.assert_allclose(together.head_second_moment, np.outer(right, right), atol=1e-13)


def test_the_weight_is_in_both_factors_by_its_root() -> None:
    method, basis = full_history(L), random_basis(STATES, 2, np.random.default_rng(3))
    plain = replace(method, explained_power=0.0)
    ((walk,),) = walks(RARE, rounds=1, agents=1)
    one, other = (learn_round(LearnerState.initial(2), basis, walk, each).gradient for each in (method, plain))
    assert isinstance(one, FactoredMatrix)
    assert isinstance(other, FactoredMatrix)
    ratios = np.array([one.left[0, 0] / other.left[0, 0], one.right[0, 0] / other.right[0, 0]])
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-12)
    assert ratios[0] < 0.9
    np.testing.assert_allclose(to_dense(one), ratios[0] ** 2 * to_dense(other), rtol=1e-12)


# A bound that binds -----------------------------------------------------------------------------------------------


def told_in(method: Method, rounds: int) -> tuple[list[tuple[int, tuple[str, ...]]], SiteLearner]:
    """After each round: the rounds so far in which the head was cut, and whom the upload names."""
    spec = specification(method, agents=2)
    learner = SiteLearner(make_site(RINGS, 0, 0), spec, name="site-0", index=0, with_baseline=False)
    basis, found = spec.initial_basis(), []
    for number in range(rounds):
        upload = learner.learn(number, basis, initial_head_covariance(method, spec.rank))
        found.append((learner.bounded_rounds, upload.bounded))
    return found, learner


@pytest.mark.parametrize("head_update", WITHOUT_PRIOR)
def test_an_agent_names_itself_where_the_bound_has_cut_its_head(head_update: HeadUpdate) -> None:
    """In the first such round, and after 2, 4, 8, …: a message may be lost, and each costs bytes."""
    found, learner = told_in(replace(full_history(3), head_update=head_update, head_radius=1e-3), 12)
    before = 0
    for count, names in found:
        assert names == (("site-0",) if count > before and count in (1, 2, 4, 8) else ())
        before = count
    assert learner.bounded_rounds >= 2
    assert np.linalg.norm(learner.state.head) > 0.0


@pytest.mark.parametrize(
    "method", [practical(3), full_history(3), compact(3), replace(full_history(3), head_radius=1e3)]
)
def test_an_agent_names_nobody_where_the_bound_is_out_of_reach(method: Method) -> None:
    assert told_in(method, 5)[0] == [(0, ())] * 5


@pytest.mark.parametrize("head_update", WITHOUT_PRIOR)
def test_a_group_names_those_whose_heads_were_cut(head_update: HeadUpdate) -> None:
    method = replace(compact(3), head_update=head_update, head_radius=0.3)
    spec = specification(method, agents=3)
    names = tuple(f"site-{index}" for index in range(3))
    group = GroupLearner(GroupSites.of(RINGS, (0, 1, 2), spec.feature_dim, 0), spec, names=names)
    alone = [
        SiteLearner(make_site(RINGS, index, 0), spec, name=names[index], index=index, with_baseline=False)
        for index in range(3)
    ]
    basis = spec.initial_basis()
    for number in range(9):
        upload = group.learn(number, basis)
        assert upload.bounded == tuple(name for each in alone for name in each.learn(number, basis).bounded)
    assert group.bounded_rounds.tolist() == [each.bounded_rounds for each in alone]
    assert [agent.bounded_rounds for agent in group.agents()] == group.bounded_rounds.tolist()
    assert group.bounded_rounds.any()


def test_a_fleet_in_one_process_says_once_who_was_bounded(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Fleet(RINGS, agents=2, rounds=9, preset="full-history", head_radius=0.01, baseline=False).run()
    said = [record.message for record in caplog.records if "head-bounded" in record.message]
    assert sorted(name for name in ("site-0", "site-1") for text in said if f"the head of {name} " in text) == [
        "site-0",
        "site-1",
    ]
    assert len(said) == 2
    assert all("head_radius = 0.01" in text and "raise --head-radius" in text for text in said)


def test_the_note_names_a_few_and_the_remedy() -> None:
    many = [f"site-{index}" for index in range(9)]
    assert bound_note(many, paper(3)) == (
        "the heads of site-0, site-1, site-2, site-3, site-4 and 4 more reached head_radius = 100 and cannot grow "
        "further, so the values are wrong; raise --head-radius (inf for no bound), scale the rewards down, or set "
        "--reward-scaled"
    )
    note = bound_note(["a"], replace(practical(3), head_radius=2.0))
    assert note.startswith("the head of a reached head_radius = 2 and")
    assert note.endswith("raise --head-radius (inf for no bound)")
