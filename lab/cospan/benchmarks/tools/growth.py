"""How one quantity grows with others: the exponent of a power law with its interval, and a sum of costs."""

import numpy as np
from jaxtyping import Float

from cospan.experiments.estimates import Estimate

_STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantiles of Student's t with 1 to 10 degrees of freedom (any table); beyond them the last is wide."""


def exponent(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Estimate:
    """b of y = a xᵇ by least squares of the logarithms, and its 95 % interval by Student's t with n − 2 degrees.

    Args:
        x: sizes, above 0, not all equal; three or more.
        y: what grows, above 0.
    """
    u, v = np.log(x), np.log(y)
    centred = u - u.mean()
    square = float(centred @ centred)
    slope = float(centred @ v) / square
    residual = v - v.mean() - slope * centred
    degrees = len(u) - 2
    error = np.sqrt(float(residual @ residual) / degrees / square)
    margin = float(_STUDENT_T[min(degrees, len(_STUDENT_T)) - 1] * error)
    return Estimate(slope, slope - margin, slope + margin)


def shares(terms: Float[np.ndarray, "n k"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " k"]:
    """c ≥ 0 of y ≈ Σ cₖ termₖ by least squares of relative errors: what each unit of each term costs.

    A term whose coefficient would be negative is left out (0), the most negative first.

    Args:
        terms: what there is of each term in each case.
        y: the cost of each case, above 0.
    """
    weighted = terms / y[:, None]
    kept = list(range(terms.shape[1]))
    while kept:
        scale = np.linalg.norm(weighted[:, kept], axis=0)
        found = np.linalg.lstsq(weighted[:, kept] / scale, np.ones(len(y)), rcond=None)[0]
        if found.min() >= 0.0:
            coefficients = np.zeros(terms.shape[1])
            coefficients[kept] = found / scale
            return coefficients
        del kept[int(found.argmin())]
    return np.zeros(terms.shape[1])
