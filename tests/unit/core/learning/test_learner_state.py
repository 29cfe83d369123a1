"""Rounds with cuts: every sum is that of the transitions alone, and nothing is learnt across a cut."""

import math
from dataclasses import replace

import numpy as np
import pytest

from cospan.core.aggregation.basis_update import initial_head_covariance
from cospan.core.learning.baselines import IndependentTD
from cospan.core.learning.learner import learn_round
from cospan.core.learning.learner_state import LearnerState, RoundOutcome, Trajectory
from cospan.core.learning.reward_moments import RewardBatches
from cospan.core.linalg.matrices import to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import PRESETS, HeadUpdate, Method
from cospan.core.quality.error_correlation import error_correlation

D, R, L, ROUNDS = 5, 2, 40, 4
BASIS = random_basis(D, R, np.random.default_rng(0))
CUTS = (0, 7, 8, 31, 39)
WITH_CUTS = {
    **{name: PRESETS[name](L) for name in ("practical", "full-history", "compact")},
    "every-step": replace(PRESETS["compact"](L), head_update=HeadUpdate.EVERY_STEP),
    "warm-up": replace(PRESETS["full-history"](L), warm_up_rounds=3),
}


def walk(number: int) -> Trajectory:
    rng = np.random.default_rng(number)
    return Trajectory(rng.uniform(-0.4, 0.4, (L + 1, D)), 3.0 + rng.standard_normal(L))


def cut(trajectory: Trajectory, cuts: tuple[int, ...] = CUTS, across: float = 0.0) -> Trajectory:
    """The same with cuts; the rewards there are this number."""
    is_transition = ~np.isin(np.arange(L), cuts)
    return replace(
        trajectory, rewards=np.where(is_transition, trajectory.rewards, across), is_transition=is_transition
    )


def learnt(method: Method, rounds: list[Trajectory]) -> RoundOutcome:
    state, covariance = LearnerState.initial(R), initial_head_covariance(method, R)
    for number, each in enumerate(rounds):
        outcome = learn_round(state, BASIS, each, method, number, head_covariance=covariance, agents=3)
        state = outcome.state
    return outcome


@pytest.mark.parametrize("name", WITH_CUTS)
def test_a_round_whose_slots_are_all_transitions_is_one_without_cuts(name: str) -> None:
    whole = learnt(WITH_CUTS[name], [walk(number) for number in range(ROUNDS)])
    masked = learnt(WITH_CUTS[name], [cut(walk(number), ()) for number in range(ROUNDS)])
    np.testing.assert_allclose(masked.weights, whole.weights, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(to_dense(masked.gradient), to_dense(whole.gradient), rtol=1e-9, atol=1e-12)
    assert masked.state.steps == whole.state.steps == ROUNDS * L


@pytest.mark.parametrize("name", WITH_CUTS)
def test_what_stands_at_a_cut_is_not_looked_at(name: str) -> None:
    rounds = [walk(number) for number in range(ROUNDS)]
    first = learnt(WITH_CUTS[name], [cut(each) for each in rounds])
    second = learnt(WITH_CUTS[name], [cut(each, across=1e9) for each in rounds])
    assert first.weights.tobytes() == second.weights.tobytes()
    assert first.state.gain_estimate == second.state.gain_estimate
    assert first.mean_squared_error == second.mean_squared_error
    assert first.state.steps == ROUNDS * (L - len(CUTS))


@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_sums_are_those_of_the_transitions_and_traces_restart_behind_a_cut(decay: float) -> None:
    method = replace(PRESETS["full-history"](L), trace_decay=decay, reward_scaled=False)
    trajectory = cut(walk(1))
    sums = learnt(method, [trajectory]).state.statistics
    assert sums is not None
    system, rewards, trace = np.zeros((D, D)), np.zeros(D), np.zeros(D)
    for slot in range(L):
        if slot in CUTS:
            trace = np.zeros(D)
            continue
        here, following = trajectory.features[slot : slot + 2]
        trace = decay * trace + here
        system += np.outer(trace, here - following)
        rewards += trace * trajectory.rewards[slot]
    np.testing.assert_allclose(sums.system, system, atol=1e-12)
    np.testing.assert_allclose(sums.rewards, rewards, atol=1e-12)
    assert (sums.steps, sums.rounds) == (L - len(CUTS), 1)


def test_the_posterior_of_pieces_is_that_of_their_transitions() -> None:
    """Rows of pieces in other slots, with cuts between, are the same data."""
    method = PRESETS["practical"](L)
    pieces = [walk(number) for number in range(2)]
    front = [cut(each, tuple(range(L // 2, L))) for each in pieces]
    moved = []
    for each in front:
        features, rewards = np.roll(each.features, L // 2, axis=0), np.roll(each.rewards, L // 2)
        assert each.is_transition is not None
        moved.append(Trajectory(features, rewards, np.roll(each.is_transition, L // 2)))
    one, other = learnt(method, front), learnt(method, moved)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-8)
    assert one.state.posterior is not None
    assert other.state.posterior is not None
    np.testing.assert_allclose(one.state.posterior.changes, other.state.posterior.changes, atol=1e-12)
    np.testing.assert_allclose(one.state.posterior.noise, other.state.posterior.noise, rtol=1e-9)


@pytest.mark.parametrize("name", WITH_CUTS)
def test_rounds_of_cuts_alone_count_nothing_twice(name: str) -> None:
    method = replace(WITH_CUTS[name], warm_up_rounds=0)
    nothing = cut(walk(9), tuple(range(L)), across=math.nan)
    once = learnt(method, [walk(0), walk(1)])
    later = learnt(method, [walk(0), walk(1), nothing, nothing])
    assert later.state.steps == once.state.steps
    for field in ("count", "offset", "deviations", "reference"):
        assert getattr(later.state.rewards, field) == getattr(once.state.rewards, field)
    assert later.state.gain_estimate == once.state.gain_estimate
    assert math.isnan(float(np.asarray(later.mean_squared_error)))
    for state in (once.state, later.state):
        assert state.statistics is None or state.statistics.rounds == 2


@pytest.mark.parametrize("name", WITH_CUTS)
def test_an_agent_without_any_transition_has_nothing_to_say(name: str) -> None:
    outcome = learnt(WITH_CUTS[name], [cut(walk(0), tuple(range(L)))] * 2)
    assert not to_dense(outcome.gradient).any()
    assert not outcome.weights.any()
    assert outcome.state.rewards.count == 0


def test_an_agent_at_its_end_follows_the_basis_with_what_it_has() -> None:
    method = PRESETS["practical"](L)
    state = learnt(method, [walk(0), walk(1)]).state
    covariance = initial_head_covariance(method, R)
    other = random_basis(D, R, np.random.default_rng(1))
    nothing = cut(walk(9), tuple(range(L)))
    outcome = learn_round(state, other, nothing, method, 2, head_covariance=covariance, agents=3)
    assert np.abs(to_dense(outcome.gradient)).max() > 0.0, "it stays in the fleet with all that it has"
    assert outcome.pooled is not None
    assert outcome.pooled[-1] > 0.0


def test_a_gap_in_an_l_step_error_is_refused() -> None:
    with pytest.raises(ValueError, match="choose another head update"):
        learnt(PRESETS["paper"](L), [cut(walk(0))])


def test_errors_are_correlated_within_whole_rounds_alone() -> None:
    method = PRESETS["practical"](L)
    whole = [walk(number) for number in range(12)]
    state = learnt(method, [*whole, cut(walk(20))]).state.posterior
    assert state is not None
    kept = replace(
        state, features=state.features[:-1], rewards=state.rewards[:-1], is_transition=state.is_transition[:-1]
    )
    np.testing.assert_array_equal(error_correlation(state)[0], error_correlation(kept)[0])


def test_td_alone_takes_no_step_at_a_cut() -> None:
    method, nothing = PRESETS["practical"](L), cut(walk(0), tuple(range(L)), across=1e9)
    before = IndependentTD.initial(D).learning_from(walk(1), method)
    after = before.learning_from(nothing, method)
    np.testing.assert_array_equal(after.weights, before.weights)
    assert (after.gain_estimate, after.steps) == (before.gain_estimate, before.steps)


def test_batches_of_rewards_weigh_rounds_by_their_mean() -> None:
    batches = RewardBatches.initial().updated(np.full(4, 2.0), 4).updated(np.full(1, 2.0), 4)
    assert batches.updated(np.zeros(0), 4) is batches
    assert batches.sums.tolist() == [8.0, 8.0]
