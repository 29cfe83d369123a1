"""Whether the features hold what matters: the correlation of an agent's TD errors from step to step.

Where the features hold the value function, the TD errors of its weights are martingale differences: no error tells
anything of a later one. Errors that are correlated come from something that persists and that the features lack.
"""

import numpy as np
from jaxtyping import Float

from cospan.core.history.feature_rows import dense
from cospan.core.learning.posterior import PosteriorState
from cospan.core.linalg.leading_axes import applied

LAGS = (1, 2)
"""In environment steps."""
LEAST_ROUNDS = 8
"""Fewest rounds from which a standard error is estimated."""


def error_correlation(
    state: PosteriorState,
) -> tuple[Float[np.ndarray, "*n lags"], Float[np.ndarray, "*n lags"]]:
    """The autocorrelation of δ at each of `LAGS` over the kept rounds, and its standard error.

    δ is that of the newest weights. Pairs lie within a round, for the kept rounds need not follow one another; the
    standard error takes rounds as independent, and the errors within one as they are. nan where the rounds are too
    few, or too short for a lag, or where all errors are equal.
    """
    whole = [each is None or bool(each.all()) for each in state.is_transition]
    features = [dense(each) for each, is_whole in zip(state.features, whole, strict=True) if is_whole]
    history = [each for each, is_whole in zip(state.rewards, whole, strict=True) if is_whole]
    changes = [each[..., 1:, :] - each[..., :-1, :] for each in features]
    errors = [rewards + applied(change, state.weights) for rewards, change in zip(history, changes, strict=True)]
    unknown = np.full((*state.weights.shape[:-1], len(LAGS)), np.nan)
    if len(errors) < LEAST_ROUNDS:
        return unknown, unknown
    deltas = np.stack(errors, axis=-2)
    deltas -= deltas.mean(axis=(-2, -1), keepdims=True)
    variance = np.square(deltas).mean(axis=(-2, -1))
    variance = np.where(variance > 0.0, variance, np.nan)
    rounds, steps = deltas.shape[-2:]
    found, spread = unknown.copy(), unknown.copy()
    for place, lag in enumerate(LAGS):
        if lag < steps:
            products = (deltas[..., :-lag] * deltas[..., lag:]).mean(axis=-1) / variance[..., None]
            found[..., place] = products.mean(axis=-1)
            spread[..., place] = products.std(axis=-1, ddof=1) / np.sqrt(rounds)
    return found, spread
