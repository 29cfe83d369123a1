"""How one quantity grows with another: the exponent of a power law, and its interval."""

import numpy as np
from jaxtyping import Float

from cospan.study.statistics import Estimate

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
