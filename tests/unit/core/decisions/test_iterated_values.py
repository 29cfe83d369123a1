"""Policy iteration over logged steps, against a process whose best policy is known."""

import numpy as np
import pytest

from cospan.core.decisions.finite_optimum import optimal_gain
from cospan.core.decisions.iterated_values import iterated_values

STATES, ACTIONS = 5, 2
DIM = STATES * ACTIONS - 1


def process() -> tuple[np.ndarray, np.ndarray]:
    """P and R of five states in which going on pays late, and staying pays little at once."""
    rng = np.random.default_rng(3)
    transitions = 0.1 * rng.dirichlet(np.ones(STATES), size=(ACTIONS, STATES))
    rewards = np.zeros((ACTIONS, STATES))
    for state in range(STATES):
        transitions[0, state, 0] += 0.9
        transitions[1, state, min(state + 1, STATES - 1)] += 0.9
    rewards[0] = 0.2
    rewards[1, STATES - 1] = 1.0
    return transitions, rewards


def logged(steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, rewards and following features of steps under the uniform policy."""
    transitions, rewards = process()
    rng, rows = np.random.default_rng(1), np.eye(DIM + 1)[:, 1:].reshape(STATES, ACTIONS, DIM)
    state, features, paid, following = 0, [], [], []
    for _ in range(steps):
        action = int(rng.integers(ACTIONS))
        features.append(rows[state, action])
        paid.append(rewards[action, state])
        state = int(rng.choice(STATES, p=transitions[action, state]))
        following.append(rows[state])
    return np.array(features), np.array(paid), np.array(following)


def greedy(weights: np.ndarray) -> list[int]:
    rows = np.eye(DIM + 1)[:, 1:].reshape(STATES, ACTIONS, DIM)
    return [int(each) for each in (rows @ weights).argmax(axis=1)]


@pytest.mark.parametrize("prior", [None, 100.0 * np.eye(DIM)], ids=["alone", "prior"])
def test_steps_of_the_uniform_policy_give_the_best_one(prior: np.ndarray | None) -> None:
    _, best = optimal_gain(*process())
    weights, root = iterated_values(*logged(3000), prior)
    assert greedy(weights) == best.tolist() == [1] * STATES
    assert root.shape == (DIM, DIM)
    assert 0.0 < np.linalg.norm(root) < 10.0


def test_one_evaluation_alone_would_not() -> None:
    """What the iteration is for: the uniform policy's own values say that staying is best at the beginning."""
    features, rewards, following = logged(3000)
    mean = following.mean(axis=1)
    centred = features - features.mean(axis=0)
    system = centred.T @ (features - mean) + 1e-3 * np.eye(DIM)
    weights = np.linalg.solve(system, centred.T @ (rewards - rewards.mean()))
    assert greedy(weights)[0] == 0


def test_equal_actions_are_both_taken() -> None:
    """Two actions with the same features: the values that follow are those of either."""
    features, rewards, following = logged(300)
    twice = np.concatenate([following, following], axis=1)
    np.testing.assert_allclose(
        iterated_values(features, rewards, twice)[0], iterated_values(features, rewards, following)[0], atol=1e-9
    )


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="no steps"):
        iterated_values(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 2, 2)))
