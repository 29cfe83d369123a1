"""The covariance of features among states that differ only in what actions change.

A part of an observation is *exogenous* where no action changes it: a clock, the weather. No decision compares
states that differ in it, and it may carry nearly all variance of the values. What decisions need are differences
within equal exogenous parts, whose mean square is zᵀ C_w z with C_w = E[Cov(φ | exogenous parts)].
"""

import itertools

import numpy as np
from jaxtyping import Float, Int

_LEAST_STATES = 20
"""States that a group of equal parts has on average at least; with fewer, a part counts as continuous."""
_MOST_KNOTS = 6
_STATES_PER_COLUMN = 5
"""Of the regression on continuous parts within a group."""


def within_covariance(
    features: Float[np.ndarray, "m d"], exogenous: Float[np.ndarray, "m k"]
) -> Float[np.ndarray, "d d"]:
    """C_w, the mean over the states of the covariance of φ given the exogenous parts.

    Parts with few different values divide the states into groups. Within each, φ is regressed on hat functions of
    the other parts; the residuals' products are divided by the degrees of freedom that are left.

    Args:
        features: of the states.
        exogenous: their exogenous parts; no columns give the covariance of all states.

    Returns:
        Symmetric, positive semidefinite; 0 where no two states are comparable.
    """
    groups, continuous = _grouped(exogenous)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    dim, total, counted = features.shape[1], np.zeros((features.shape[1],) * 2), 0
    for begin, end in itertools.pairwise([*starts.tolist(), len(groups)]):
        rows = order[begin:end]
        count = len(rows)
        if count < 2:
            continue
        design = _design(exogenous[rows][:, continuous], count // _STATES_PER_COLUMN)
        frame = np.linalg.qr(design)[0]
        left = features[rows] - frame @ (frame.T @ features[rows])
        total += (count / (count - frame.shape[1])) * (left.T @ left)
        counted += count
    return total / counted if counted else np.zeros((dim, dim))


def _grouped(exogenous: Float[np.ndarray, "m k"]) -> tuple[Int[np.ndarray, " m"], list[int]]:
    """A number for each group of equal discrete parts, and the columns of the continuous ones."""
    groups = np.zeros(len(exogenous), dtype=np.intp)
    columns = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in exogenous.T]
    continuous: list[int] = []
    for place in sorted(range(len(columns)), key=lambda each: int(columns[each].max(initial=0))):
        finer = np.unique(groups * (int(columns[place].max(initial=0)) + 1) + columns[place], return_inverse=True)[
            1
        ]
        finer = finer.reshape(-1)
        if len(exogenous) >= _LEAST_STATES * (int(finer.max(initial=0)) + 1):
            groups = finer
        else:
            continuous.append(place)
    return groups, continuous


def _design(parts: Float[np.ndarray, "m k"], most: int) -> Float[np.ndarray, "m q"]:
    """A constant, and of each continuous part hat functions between quantiles; at most `most` columns in all."""
    columns = [np.ones((len(parts), 1))]
    each = min(_MOST_KNOTS, 1 + (most - 1) // parts.shape[1]) if parts.shape[1] else 1
    for part in parts.T if each > 1 else ():
        knots = np.unique(np.quantile(part, np.linspace(0.0, 1.0, each)))
        if len(knots) > 1:  # the first hat follows from the others and the constant
            columns.append(np.stack([np.interp(part, knots, unit) for unit in np.eye(len(knots))[1:]], axis=1))
    return np.concatenate(columns, axis=1)
