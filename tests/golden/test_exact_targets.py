"""Exact targets of finite chains against hand-worked numbers and against sums and powers taken literally.

Nothing below solves a linear system: a stationary distribution is a high power of P, a differential value the sum
over time of P^t (R − J), and A_L and b_L are expectations written as loops over states.
"""

import numpy as np
import pytest

from cospan.core.exact_solutions import (
    common_subspace,
    differential_value,
    feature_covariance,
    gain,
    relative_value_error,
    stationary_distribution,
    stationary_distributions,
    td_fixed_point,
    td_system,
)

N, D = 8, 3
SEEDS = range(6)


def chain(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A kernel that mixes within some dozens of steps, and expected rewards."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(N, 0.4), size=N) * 0.95 + 0.05 / N, rng.standard_normal(N)


def some_features(seed: int) -> np.ndarray:
    features = np.random.default_rng((seed, 1)).standard_normal((N, D))
    return features / np.linalg.norm(features, axis=1).max()


def limit_row(transition: np.ndarray) -> np.ndarray:
    """Any row of P^(2^20), by squaring twenty times."""
    power = transition
    for _ in range(20):
        power = power @ power
        power /= power.sum(axis=1, keepdims=True)  # rounding would otherwise double with each squaring
    return power[0]


def summed_value(transition: np.ndarray, centred: np.ndarray) -> np.ndarray:
    """Σ_t P^t (R − J), 4,000 terms."""
    total, term = np.zeros(N), centred
    for _ in range(4000):
        total += term
        term = transition @ term
    return total


# By hand --------------------------------------------------------------------------------------------------------


def test_two_states_by_hand() -> None:
    """P = [[.9, .1], [.3, .7]], R = (1, 0): μ = (3/4, 1/4), J = 3/4.

    V(0) − V(1) = (R(0) − R(1)) / (1 − (0.9 − 0.3)) = 2.5 and 3/4·V(0) + 1/4·V(1) = 0: V = (0.625, −1.875).
    """
    transition, rewards = np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([1.0, 0.0])
    stationary = stationary_distribution(transition)
    np.testing.assert_allclose(stationary, [0.75, 0.25], atol=1e-15)
    assert gain(stationary, rewards) == pytest.approx(0.75, abs=1e-15)
    np.testing.assert_allclose(differential_value(transition, rewards), [0.625, -1.875], atol=1e-14)


def test_a_periodic_chain_by_hand() -> None:
    """0 → 1 → 2 → 0 with rewards 3, 0, 0: J = 1, V(s) = R(s) − 1 + V(s + 1), so V = (1, −1, 0) and μ·V = 0.

    P^t has no limit here; the Poisson equation still has its solution.
    """
    transition, rewards = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), np.array([3.0, 0.0, 0.0])
    np.testing.assert_allclose(stationary_distribution(transition), np.full(3, 1 / 3), atol=1e-15)
    np.testing.assert_allclose(differential_value(transition, rewards), [1.0, -1.0, 0.0], atol=1e-14)


def test_a_transient_state_by_hand() -> None:
    """State 0 is left for good at once: μ = (0, 1/2, 1/2), J = 1/2, V = (−1/2 + V(1), 1/4, −1/4)."""
    transition, rewards = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]), np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(stationary_distribution(transition), [0.0, 0.5, 0.5], atol=1e-15)
    np.testing.assert_allclose(differential_value(transition, rewards), [-0.25, 0.25, -0.25], atol=1e-14)


# By brute force -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_stationary_distribution_is_a_row_of_a_high_power(seed: int) -> None:
    transition, rewards = chain(seed)
    expected = limit_row(transition)
    stationary = stationary_distribution(transition)
    np.testing.assert_allclose(stationary, expected, atol=1e-13)
    assert gain(stationary, rewards) == pytest.approx(sum(expected[s] * rewards[s] for s in range(N)), abs=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
def test_differential_value_is_the_sum_over_time(seed: int) -> None:
    transition, rewards = chain(seed)
    stationary = limit_row(transition)
    value = differential_value(transition, rewards)
    np.testing.assert_allclose(value, summed_value(transition, rewards - stationary @ rewards), atol=1e-11)
    assert stationary @ value == pytest.approx(0.0, abs=1e-13)


@pytest.mark.parametrize("steps", [1, 2, 5, 12])
@pytest.mark.parametrize("seed", SEEDS)
def test_td_system_is_its_expectation_over_states(seed: int, steps: int) -> None:
    """A_L = E[φ(s_0)(φ(s_L) − φ(s_0))ᵀ] and b_L = E[φ(s_0) Σ_{l<L}(r_l − J)], s_0 ~ μ."""
    transition, rewards = chain(seed)
    features = some_features(seed)
    stationary = limit_row(transition)
    mean_reward = stationary @ rewards
    powers = [np.linalg.matrix_power(transition, lag) for lag in range(steps + 1)]
    matrix, vector = np.zeros((D, D)), np.zeros(D)
    for here in range(N):
        for i in range(D):
            for there in range(N):
                reach = stationary[here] * powers[steps][here, there]
                for j in range(D):
                    matrix[i, j] += reach * features[here, i] * (features[there, j] - features[here, j])
                for lag in range(steps):
                    weight = stationary[here] * powers[lag][here, there]
                    vector[i] += weight * features[here, i] * (rewards[there] - mean_reward)
    actual_matrix, actual_vector = td_system(features, transition, rewards, steps)
    np.testing.assert_allclose(actual_matrix, matrix, atol=1e-13)
    np.testing.assert_allclose(actual_vector, vector, atol=1e-13)


# The fixed point ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_fixed_point_is_the_same_for_every_horizon_when_the_value_is_in_the_span(seed: int) -> None:
    """Rewards R = J + V − P V with V = Φ z make V the value by construction, so z_L = z whatever L is."""
    transition, _ = chain(seed)
    features = some_features(seed)
    weights = np.random.default_rng((seed, 2)).standard_normal(D)
    value = features @ weights
    rewards = 0.7 + value - transition @ value
    stationary = stationary_distribution(transition)
    assert gain(stationary, rewards) == pytest.approx(0.7, abs=1e-13)
    np.testing.assert_allclose(differential_value(transition, rewards), value - stationary @ value, atol=1e-12)
    for steps in (1, 2, 3, 7, 30):
        np.testing.assert_allclose(td_fixed_point(features, transition, rewards, steps), weights, atol=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_fixed_point_depends_on_the_horizon_when_the_value_is_not_in_the_span(seed: int) -> None:
    """The counterpart of the test above; and as L grows z_L tends to the projection of V (P^L → 1μᵀ)."""
    transition, rewards = chain(seed)
    features = some_features(seed)
    points = [td_fixed_point(features, transition, rewards, steps) for steps in (1, 2, 4000)]
    assert np.linalg.norm(points[0] - points[1]) > 1e-3
    stationary = limit_row(transition)
    covariance = feature_covariance(features, stationary)
    value = summed_value(transition, rewards - stationary @ rewards)
    correlation = sum(stationary[s] * (features[s] - stationary @ features) * value[s] for s in range(N))
    np.testing.assert_allclose(covariance @ points[2], correlation, atol=1e-10)


def test_one_hot_features_are_refused() -> None:
    """They span the constant function, along which TD is free to drift; without a reference state all is well."""
    transition, rewards = chain(0)
    with pytest.raises(np.linalg.LinAlgError, match="span a constant"):
        td_fixed_point(np.eye(N), transition, rewards)
    weights = td_fixed_point(np.eye(N)[:, 1:], transition, rewards)
    value = differential_value(transition, rewards)
    np.testing.assert_allclose(weights, value[1:] - value[0], atol=1e-11)


# Errors and subspaces -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_value_error_is_a_ratio_of_variances(seed: int) -> None:
    transition, _ = chain(seed)
    features = some_features(seed)
    stationary = limit_row(transition)
    rng = np.random.default_rng((seed, 3))
    estimate, truth = rng.standard_normal(D), rng.standard_normal(D)

    def variance(weights: np.ndarray) -> float:
        values = [float(sum(features[s, i] * weights[i] for i in range(D))) for s in range(N)]
        mean = sum(p * v for p, v in zip(stationary, values, strict=True))
        return sum(p * (v - mean) ** 2 for p, v in zip(stationary, values, strict=True))

    covariance = feature_covariance(features, stationary)
    expected = variance(estimate - truth) / variance(truth)
    assert relative_value_error(estimate, truth, covariance) == pytest.approx(expected, rel=1e-12)
    assert relative_value_error(truth, truth, covariance) == 0.0
    assert relative_value_error(np.zeros(D), truth, covariance) == pytest.approx(1.0, rel=1e-12)


def test_common_subspace_leaves_the_least() -> None:
    """Eckart and Young: what the best rank-r subspace misses is the root of the sum of the other σ²."""
    weights = np.random.default_rng(5).standard_normal((12, 6)) * np.array([5.0, 3.0, 1.0, 0.3, 0.1, 0.05])
    basis, singular = common_subspace(weights, 2)
    missed = np.linalg.norm(weights - weights @ basis @ basis.T)
    assert missed == pytest.approx(np.sqrt(np.sum(singular[2:] ** 2)), rel=1e-12)
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-14)
    assert np.sum(singular**2) == pytest.approx(np.sum(weights**2), rel=1e-12)
    rng = np.random.default_rng(6)
    for _ in range(50):
        other = np.linalg.qr(rng.standard_normal((6, 2)))[0]
        assert np.linalg.norm(weights - weights @ other @ other.T) > missed


def test_common_subspace_of_fewer_agents_than_columns() -> None:
    weights = np.random.default_rng(7).standard_normal((2, 6))
    basis, singular = common_subspace(weights, 4)
    assert basis.shape == (6, 2)
    assert singular.shape == (2,)
    np.testing.assert_allclose(weights @ basis @ basis.T, weights, atol=1e-14)


def test_the_stationary_distributions_of_several_chains_are_those_of_each() -> None:
    transitions = np.stack([chain(seed)[0] for seed in SEEDS])
    expected = np.stack([stationary_distribution(each) for each in transitions])
    np.testing.assert_allclose(stationary_distributions(transitions), expected, rtol=1e-12)
