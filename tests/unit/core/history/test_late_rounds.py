"""Rounds that are summed later come to what each by itself would."""

from dataclasses import replace

import numpy as np
import pytest

from cospan.core.history.feature_rows import TableRows
from cospan.core.history.late_rounds import LateRound, late_of_agents, with_late
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.posterior import ARRAYS, PosteriorState

AGENTS, DIM, L = 5, 4, 6
SUMS = ("system", "rewards", "traces", "squares", "reward_sum", "steps", "rounds")


def played(states: int, rounds: int) -> list[LateRound]:
    rng = np.random.default_rng((states, rounds))
    table = rng.uniform(-0.5, 0.5, (states, DIM))
    return [
        LateRound(TableRows.of(table, rng.integers(0, states, (AGENTS, L + 1))), rng.standard_normal((AGENTS, L)))
        for _ in range(rounds)
    ]


def one_by_one(rounds: list[LateRound], variance: np.ndarray) -> tuple[TransitionSums, PosteriorState]:
    """The sums as rounds come, with noise of this variance from the beginning."""
    sums, state = TransitionSums.of_features(DIM, (AGENTS,)), PosteriorState.initial(DIM, (AGENTS,))
    state = replace(state, variance=variance, stride=2)
    for each in rounds:
        features = each.rows.table[each.rows.rows]
        sums = sums.updated(features, features[:, :-1], each.rewards, 0.0)
        state = state.observed(features, each.rewards, rows=each.rows)
    return sums, state


def kept(rounds: list[LateRound], variance: np.ndarray) -> tuple[TransitionSums, PosteriorState]:
    """The same numbers and history, without what is summed later."""
    sums, state = TransitionSums.of_features(DIM, (AGENTS,)), PosteriorState.initial(DIM, (AGENTS,))
    state = replace(state, variance=variance, stride=2)
    for each in rounds:
        sums = sums.counting(each.rewards, each.rows.squares[:, :-1].sum(axis=1))
        state = state.keeping(each.rows, each.rewards)
    return sums, state


def check_alike(
    found: tuple[TransitionSums, PosteriorState], expected: tuple[TransitionSums, PosteriorState]
) -> None:
    for names, mine, theirs in ((SUMS, found[0], expected[0]), (ARRAYS, found[1], expected[1])):
        for name in names:
            np.testing.assert_allclose(
                getattr(mine, name), getattr(theirs, name), rtol=1e-11, atol=1e-11, err_msg=name
            )


@pytest.mark.parametrize(("states", "rounds"), [(3, 1), (3, 20), (40, 3), (40, 20), (300, 2)])
def test_rounds_summed_at_once_come_to_what_they_come_to_one_by_one(states: int, rounds: int) -> None:
    """Of short tables by how often states came and followed each other, of long ones by their features."""
    late = played(states, rounds)
    variance = np.abs(np.random.default_rng(1).standard_normal((AGENTS, DIM + 1)))
    expected = one_by_one(late, variance)
    check_alike(with_late(*kept(late, variance), late, with_noise=True), expected)
    half = rounds // 2
    first = with_late(*kept(late, variance), late[:half], with_noise=True) if half else kept(late, variance)
    check_alike(with_late(*first, late[half:], with_noise=True), expected)


def test_noise_that_is_made_of_the_history_is_left_as_it_was() -> None:
    late = played(40, 4)
    sums, state = kept(late, np.ones((AGENTS, DIM + 1)))
    assert with_late(sums, state, late, with_noise=False)[1].noise is state.noise


def test_one_agents_rounds_are_summed_as_they_are_among_others() -> None:
    late = played(40, 4)
    sums, state = kept(late, np.ones((AGENTS, DIM + 1)))
    whole = with_late(sums, state, late, with_noise=True)
    found = with_late(sums.of_agents(2), state.of_agents(2), late_of_agents(late, 2), with_noise=True)
    check_alike(found, (whole[0].of_agents(2), whole[1].of_agents(2)))
    some = [0, 3]
    found = with_late(sums.of_agents(some), state.of_agents(some), late_of_agents(late, some), with_noise=True)
    check_alike(found, (whole[0].of_agents(some), whole[1].of_agents(some)))
