"""Action values of a policy that is greedy with respect to them, from logged steps under any policies."""

import numpy as np
from jaxtyping import Float

from cospan.core.decisions.paired_values import Values
from cospan.core.decisions.weights_root import weights_root

RIDGE_STEPS = 3.0
"""Weight of the prior of an agent alone, in steps; ‖φ‖² is 1 on average in its unit."""
MOST_SWEEPS = 20
"""Evaluations of a policy; most end after five, for it changes no more."""


def iterated_values(
    features: Float[np.ndarray, "m d"],
    rewards: Float[np.ndarray, " m"],
    following: Float[np.ndarray, "m a d"],
    prior_covariance: Float[np.ndarray, "d d"] | None = None,
) -> Values:
    """Policy iteration for the mean reward (Lagoudakis and Parr 2003, "Least-squares policy iteration").

    The values of any policy are solved from the same steps: A = Σ φ̃ (φ − φ'_π)ᵀ and b = Σ φ̃ r̃, φ'_π the mean over
    the policy's actions in the observation that followed. So no step is dropped when a policy changes. It begins at
    the policy that draws uniformly, and the next one takes the actions of the largest φᵀ z.

    Args:
        features: φ(s_t, a_t).
        rewards: r_t.
        following: φ(s_{t+1}, a) of every action a.
        prior_covariance: Γ of z, in the unit of the data; None of an agent alone.

    Raises:
        ValueError: there is no step.
    """
    steps, dim = features.shape
    if not steps:
        raise ValueError("there are no steps to learn from")
    shares = np.full(following.shape[:2], 1.0 / following.shape[1])
    centred, relative = features - features.mean(axis=0), rewards - rewards.mean()
    moment = centred.T @ relative
    scale = float(np.einsum("md,md->", features, features)) / steps / dim
    ridge = RIDGE_STEPS * max(scale, np.finfo(float).tiny) * np.eye(dim)
    weights, errors = np.zeros(dim), relative
    for _ in range(MOST_SWEEPS):
        after = np.einsum("ma,mad->md", shares, following)
        system = centred.T @ (features - after)
        if prior_covariance is None:
            weights = np.linalg.solve(system + ridge, moment)
        else:
            weights = _posterior_mean(system, moment, centred, errors, prior_covariance)
        errors = relative + (after - features) @ weights
        errors = errors - errors.mean()
        before, shares = shares, _greedy_shares(following @ weights)
        if np.array_equal(before, shares):
            break
    prior = prior_covariance
    if prior is None:
        prior = float(errors.var()) * np.linalg.inv(ridge) + np.finfo(float).tiny * np.eye(dim)
    return weights, weights_root(features, after, errors, prior, steps=float(steps))


def _posterior_mean(
    system: Float[np.ndarray, "d d"],
    moment: Float[np.ndarray, " d"],
    centred: Float[np.ndarray, "m d"],
    errors: Float[np.ndarray, " m"],
    prior_covariance: Float[np.ndarray, "d d"],
) -> Float[np.ndarray, " d"]:
    """(Aᵀ S⁻¹ A + Γ⁻¹)⁻¹ Aᵀ S⁻¹ b with S = σ² Σ φ̃ φ̃ᵀ."""
    dim = len(moment)
    noise = float(errors.var()) * (centred.T @ centred)
    noise = noise + (1e-6 * float(np.trace(noise)) / dim + np.finfo(float).tiny) * np.eye(dim)
    weighted = np.linalg.solve(noise, np.column_stack([system, moment]))
    return np.asarray(
        np.linalg.solve(system.T @ weighted[:, :-1] + np.linalg.inv(prior_covariance), system.T @ weighted[:, -1])
    )


def _greedy_shares(values: Float[np.ndarray, "m a"]) -> Float[np.ndarray, "m a"]:
    """With which probability each action is taken: equal ones, but for rounding, equally often."""
    best = values.max(axis=1, keepdims=True)
    among = values >= best - 1e-12 * np.abs(values).max(axis=1, keepdims=True)
    return np.asarray(among / among.sum(axis=1, keepdims=True))
