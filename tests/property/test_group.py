"""A group of agents against the same agents one by one: every kind of correction, whatever the constants."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cospan.core.aggregation.basis_update import Contribution, sum_of_contributions
from cospan.core.learning.learner import contribution_of, learn_round
from cospan.core.learning.learner_state import LearnerState, RoundOutcome, Trajectory
from cospan.core.learning.posterior import ARRAYS
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import PRESETS, HeadUpdate, Method, full_history, practical

TOLERANCE = 1e-12
OF_POSTERIORS = 1e-9
"""Eigenvalue problems and inverses of the moments amplify rounding."""
ROUNDS = 4


@st.composite
def methods(draw: st.DrawFn) -> Method:
    """A preset, with head_update of any kind and with every option that an agent knows of."""
    base = PRESETS[draw(st.sampled_from(sorted(PRESETS)))](draw(st.integers(1, 40)))
    head_update = draw(st.sampled_from(HeadUpdate))
    if head_update is HeadUpdate.POSTERIOR:
        return practical(base.steps_per_round)
    return replace(
        base,
        head_update=head_update,
        head_step=draw(st.sampled_from([0.1, 1.5])),
        head_radius=draw(st.sampled_from([0.05, 1000.0, float("inf")])),
        implicit_head_step=draw(st.booleans()),
        preconditioned=draw(st.booleans()),
        row_scaled=draw(st.booleans()),
        reward_scaled=draw(st.booleans()),
        explained_power=draw(st.sampled_from([0.0, 1.0, 2.0])),
        trace_decay=draw(st.sampled_from([0.0, 0.7])),
        forgetting=draw(st.sampled_from([0.0, 4.0])),
        decay_horizon=draw(st.sampled_from([0.0, 50.0])),
    )


def trajectories(agents: int, steps: int, dim: int, rng: np.random.Generator) -> Trajectory:
    """Features of norm below one. The first agent's rewards never vary, and the last one's features are zero."""
    features = rng.uniform(-1.0, 1.0, (agents, steps + 1, dim)) / np.sqrt(dim)
    rewards = rng.standard_normal((agents, steps)) * rng.uniform(0.5, 2.0, (agents, 1))
    rewards[0] = 0.5
    if agents > 2:
        features[-1] = 0.0
    return Trajectory(features, rewards)


def close(found: object, expected: object, tolerance: float = TOLERANCE) -> None:
    """Equal to 1e-12 of the largest entry, or of one where that is smaller."""
    wanted = np.asarray(expected, dtype=np.float64)
    scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0.0, atol=tolerance * scale)


def total(parts: list[np.ndarray | None]) -> np.ndarray | None:
    present = [part for part in parts if part is not None]
    return np.sum(present, axis=0) if present else None


def same_contribution(found: Contribution, singles: list[Contribution], tolerance: float = TOLERANCE) -> None:
    assert found.weight == len(singles)
    # Of a sum over agents, some of which count a thousandfold: the largest of them is the scale.
    scale = max(1.0, *(float(np.abs(to_dense(single.gradient)).max()) for single in singles))
    close(
        to_dense(found.gradient) / scale,
        np.sum([to_dense(single.gradient) for single in singles], axis=0) / scale,
        tolerance,
    )
    for name in ("head_second_moment", "pooled"):
        expected = total([getattr(single, name) for single in singles])
        assert (getattr(found, name) is None) == (expected is None)
        if expected is not None:
            # Curvatures are rounded to float32 on the way.
            close(getattr(found, name), expected, max(tolerance, 0.0 if name != "pooled" else 1e3 * tolerance))


def same_states(found: LearnerState, singles: list[LearnerState], tolerance: float = TOLERANCE) -> None:
    for number, single in enumerate(singles):
        mine = found.of_agents(number)
        close(mine.head, single.head, tolerance)
        close(mine.gain_estimate, single.gain_estimate)
        assert (mine.steps, mine.rewards.count) == (single.steps, single.rewards.count)
        close([mine.rewards.mean, mine.rewards.deviations], [single.rewards.mean, single.rewards.deviations])
        assert (mine.statistics is None) == (single.statistics is None)
        if mine.statistics is not None and single.statistics is not None:
            assert (mine.statistics.steps, mine.statistics.rounds) == (
                single.statistics.steps,
                single.statistics.rounds,
            )
            for name in ("system", "rewards", "traces", "squares", "reward_sum"):
                close(getattr(mine.statistics, name), getattr(single.statistics, name))


def same_posteriors(found: LearnerState, singles: list[LearnerState]) -> None:
    for number, single in enumerate(singles):
        mine, its = found.of_agents(number).posterior, single.posterior
        assert mine is not None
        assert its is not None
        assert (mine.stride, mine.rounds, len(mine.features)) == (its.stride, its.rounds, len(its.features))
        for name in (*ARRAYS, "shared_weight"):
            close(getattr(mine, name), getattr(its, name), OF_POSTERIORS)


def alone(
    states: list[LearnerState],
    basis: np.ndarray,
    played: Trajectory,
    method: Method,
    covariance: np.ndarray | None = None,
) -> list[RoundOutcome]:
    pairs = zip(states, played.features, played.rewards, strict=True)
    return [
        learn_round(state, basis, Trajectory(*rest), method, head_covariance=covariance) for state, *rest in pairs
    ]


@given(methods(), st.integers(1, 6), st.integers(1, 7), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_a_group_learns_what_its_agents_learn_alone(
    method: Method, agents: int, dim: int, rank: int, seed: int
) -> None:
    """Over some rounds with other bases, and the sum of what they send."""
    rank, rng = min(rank, dim), np.random.default_rng(seed)
    group, singles = LearnerState.initial(rank, agents), [LearnerState.initial(rank)] * agents
    same_states(group, singles)
    for _ in range(ROUNDS):
        basis, played = random_basis(dim, rank, rng), trajectories(agents, method.steps_per_round, dim, rng)
        root = rng.standard_normal((rank, rank))
        covariance = root @ root.T if method.has_head_covariance else None
        outcome = learn_round(group, basis, played, method, head_covariance=covariance)
        outcomes = alone(singles, basis, played, method, covariance)
        group, singles = outcome.state, [single.state for single in outcomes]
        tolerance = OF_POSTERIORS if method.has_head_covariance else TOLERANCE
        same_states(group, singles, tolerance)
        if method.has_head_covariance:
            same_posteriors(group, singles)
        same_contribution(
            contribution_of(outcome, method), [contribution_of(single, method) for single in outcomes], tolerance
        )
        close(outcome.mean_squared_error, [single.mean_squared_error for single in outcomes], tolerance)


@given(st.sampled_from(HeadUpdate), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_a_group_may_learn_in_parts(head_update: HeadUpdate, agents: int, seed: int) -> None:
    """Two parts of a group, each by itself, send together what the whole sends."""
    rng, method = np.random.default_rng(seed), replace(full_history(5), head_update=head_update)
    basis, played, cut = random_basis(6, 3, rng), trajectories(agents, 5, 6, rng), int(rng.integers(1, agents))

    def learnt(part: slice) -> RoundOutcome:
        mine = Trajectory(played.features[part], played.rewards[part])
        return learn_round(
            LearnerState.initial(3, len(mine.rewards)), basis, mine, method, head_covariance=np.eye(3)
        )

    whole, parts = learnt(slice(None)), [learnt(slice(cut)), learnt(slice(cut, None))]
    found = sum_of_contributions([contribution_of(part, method) for part in parts], keep_factors=True)
    assert found.weight == agents
    expected = contribution_of(whole, method)
    tolerance = OF_POSTERIORS if method.has_head_covariance else TOLERANCE
    close(to_dense(found.gradient), to_dense(expected.gradient), tolerance)
    close(found.head_second_moment, expected.head_second_moment)
    if head_update is HeadUpdate.FULL_HISTORY:
        close(found.pooled, expected.pooled)


def test_few_agents_send_factors_and_many_send_the_matrix() -> None:
    """Whichever is shorter: factors of as many columns as agents, or d × r."""
    rng, method = np.random.default_rng(1), full_history(5)
    for agents, kind in ((2, FactoredMatrix), (3, DenseMatrix)):
        played = trajectories(agents, 5, 6, rng)
        outcome = learn_round(LearnerState.initial(3, agents), random_basis(6, 3, rng), played, method)
        assert isinstance(outcome.gradient, kind)


def test_a_singular_system_among_others_is_solved_as_alone() -> None:
    """κ = 10 steps · ‖z‖²/steps, so a transition from φ to 11 φ cancels the ridge: A + κ = 0."""
    method = replace(full_history(1), explained_power=0.0)
    features = np.array([[[0.0625], [0.6875]], [[0.3], [0.2]]])
    played, basis = Trajectory(features, np.array([[1.0], [2.0]])), np.eye(1)
    outcome = learn_round(LearnerState.initial(1, 2), basis, played, method)
    singles = alone([LearnerState.initial(1)] * 2, basis, played, method)
    close(outcome.state.head, [single.state.head for single in singles])


def test_a_warm_up_is_refused() -> None:
    played = trajectories(2, 5, 4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="a group cannot take part in a warm-up"):
        learn_round(
            LearnerState.initial(2, 2), np.eye(4)[:, :2], played, replace(full_history(5), warm_up_rounds=3)
        )
