"""Many consecutive TD corrections at once.

Each correction is seen by all later ones, which makes a loop of them slow in Python. But a TD error is linear in
the weights, so the errors of a block of steps solve one triangular system, and everything else follows by
products. Results are those of the loop up to rounding.
"""

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float

from cospan.core.learning.td import gain_update, head_update
from cospan.core.linalg.leading_axes import PerAgent, dot

BLOCK = 32
"""Steps in one system: with more of them a step costs more arithmetic, with fewer more calls."""


def blocks(steps: int) -> Iterator[slice]:
    """The consecutive blocks that L steps are cut into."""
    return (slice(start, min(start + BLOCK, steps)) for start in range(0, steps, BLOCK))


def successive_errors(
    first: Float[np.ndarray, "*n L"], influence: Float[np.ndarray, "*n L L"]
) -> Float[np.ndarray, "*n L"]:
    """δ of L corrections: δ_h = c_h + Σ_{j<h} N_hj δ_j.

    With w_{h+1} = w_h + a_h δ_h e_h and δ_h = r_h − η_h + (φ_{h+1} − φ_h)ᵀ w_h these are
    c_h = r_h − η_h + (φ_{h+1} − φ_h)ᵀ w_0 and N_hj = (φ_{h+1} − φ_h)ᵀ e_j a_j.

    Args:
        first: c, the errors if the weights stayed as they are.
        influence: N, of which what is not below the diagonal has no meaning.
    """
    size = first.shape[-1]
    identity, below = _triangle(size)
    try:
        return np.asarray(np.linalg.solve(identity - influence * below, first[..., None])[..., 0])
    except np.linalg.LinAlgError:  # entries so large that elimination with pivots loses the ones on the diagonal
        errors = first.copy()
        for step in range(1, size):
            errors[..., step] += np.einsum("...j,...j->...", influence[..., step, :step], errors[..., :step])
        return errors


def gain_path(
    gain_estimate: PerAgent, rewards: Float[np.ndarray, "*n L"], steps: Float[np.ndarray, " L"]
) -> Float[np.ndarray, "*n L1"]:
    """η before each of the L gain updates, and after the last."""
    path = [gain_estimate]
    for reward, step in zip(rewards.tolist() if rewards.ndim == 1 else rewards.T, steps.tolist(), strict=True):
        gain_estimate = gain_update(gain_estimate, reward, step)
        path.append(gain_estimate)
    return np.array(path).T


@np.errstate(over="ignore", invalid="ignore")
def head_path(
    head: Float[np.ndarray, "*n r"],
    centred: Float[np.ndarray, "*n L"],
    differences: Float[np.ndarray, "*n L r"],
    moves: Float[np.ndarray, "*n L r"],
    radius: PerAgent,
) -> tuple[Float[np.ndarray, "*n L"], Float[np.ndarray, "*n L1 r"]]:
    """δ of each of L corrections w ← Π[w + δ · move], and w before each and after the last.

    For one agent they are solved for block by block, in a sixth of the time of a loop over the steps. For many
    agents the loop is faster, for each of its steps is one operation on all of them (ADR 21).

    Args:
        head: w before the first.
        centred: r − η at each step.
        differences: Bᵀ(φ(s') − φ(s)) at each step.
        moves: step size times direction, of each step.
        radius: U.
    """
    steps = centred.shape[-1]
    errors, heads = np.empty(centred.shape), np.empty((*head.shape[:-1], steps + 1, head.shape[-1]))
    heads[..., 0, :] = head
    for block in blocks(steps):
        if head.ndim == 1:
            after, start = slice(block.start + 1, block.stop + 1), heads[block.start]
            errors[block] = successive_errors(
                centred[block] + differences[block] @ start, differences[block] @ moves[block].T
            )
            heads[after] = start + (errors[block, None] * moves[block]).cumsum(axis=0)
            if math.sqrt(np.einsum("ij,ij->i", heads[after], heads[after]).max()) <= radius:
                continue
            # The ball is no linear map: where it is reached, or a sum is not finite, only the loop is right.
        for index in range(block.start, block.stop):
            before = heads[..., index, :]
            error = centred[..., index] + dot(differences[..., index, :], before)
            errors[..., index] = error
            heads[..., index + 1, :] = head_update(before, error, moves[..., index, :], 1.0, radius)
    return errors, heads


@lru_cache(maxsize=BLOCK)
def _triangle(size: int) -> tuple[Float[np.ndarray, "L L"], Float[np.ndarray, "L L"]]:
    """The identity, and 1 where an entry is below the diagonal."""
    identity, below = np.eye(size), np.tri(size, k=-1, dtype=np.float64)
    identity.setflags(write=False)
    below.setflags(write=False)
    return identity, below


def discounted_sums(
    values: Float[np.ndarray, "*n L k"], decay: float, is_transition: Bool[np.ndarray, " L"] | None = None
) -> Float[np.ndarray, "*n L k"]:
    """e_h = λ e_{h−1} + v_h with e_{−1} = 0, λ = `decay`; of features these are the eligibility traces of TD(λ).

    (Tsitsiklis and Van Roy 1999, "Average cost temporal-difference learning", section 2.) At a cut the sum is 0,
    and behind it a new one begins.

    Args:
        values: v.
        decay: λ.
        is_transition: false for cuts; None where there are none, and always with leading axes.
    """
    if is_transition is not None:
        return _of_pieces(values, decay, is_transition)
    if decay == 0.0:
        return values
    sums = np.empty(values.shape)
    for block in blocks(values.shape[-2]):
        weights, fading = _discounts(block.stop - block.start, decay)
        sums[..., block, :] = weights @ values[..., block, :]
        if block.start:
            sums[..., block, :] += fading[:, None] * sums[..., block.start - 1, None, :]
    return sums


def _of_pieces(
    values: Float[np.ndarray, "L k"], decay: float, is_transition: Bool[np.ndarray, " L"]
) -> Float[np.ndarray, "L k"]:
    """The discounted sums of each piece between cuts."""
    sums: np.ndarray = values * is_transition[:, None]
    if decay:
        begin = 0
        for end in (*np.flatnonzero(~is_transition).tolist(), len(values)):
            if end > begin:
                sums[begin:end] = discounted_sums(values[begin:end], decay)
            begin = end + 1
    return sums


@lru_cache(maxsize=BLOCK)
def _discounts(steps: int, decay: float) -> tuple[Float[np.ndarray, "L L"], Float[np.ndarray, " L"]]:
    """λ^(h − j) for j ≤ h, else 0, and λ^(h + 1)."""
    ages = np.subtract.outer(np.arange(steps), np.arange(steps))
    weights = np.where(ages >= 0, decay ** np.maximum(ages, 0), 0.0)
    fading = decay ** np.arange(1.0, steps + 1.0)
    weights.setflags(write=False)
    fading.setflags(write=False)
    return weights, fading
