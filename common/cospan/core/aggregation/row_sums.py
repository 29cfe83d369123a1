"""Row sums as they are sent: coarse and seldom, so that they tell little of how often a feature was seen.

The exact row sums of |A| of an agent with one-hot features are counts, and the differences from round to round tell
where it was. The coordinator needs them to scale its step (`cospan.core.linalg.subspace.row_scales`), and for that
their order of magnitude is enough.
"""

import math

import numpy as np
from jaxtyping import Float

_LEAST_POWER = -8.0
"""Ratios below 1/256 are sent as 1/256, so that zero has a logarithm: `row_scales` adds a tenth of the mean to each
row, so what is as small as that scales no step. The gradients tell all the same which features were never seen."""
_OFF_TIES = 3.0 / math.pi
"""The ratio of a count to the root mean square is the root of a rational number, which can lie exactly between two
powers of 2, where the last digit would decide. The ratio to a transcendental multiple of it never does."""


def coarse(row_sums: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
    """m · 2^k for each feature: m is 3/π of the root mean square over the features, k = log₂ of the ratio, rounded.

    Only ratios are rounded, so features times c give row sums times c², as the exact ones do; where all are zero,
    so is the result. The root mean square, for the mean would be a count: of all steps that changed the state.

    Args:
        row_sums: of each agent, none negative.
    """
    scales = _OFF_TIES * np.sqrt(np.einsum("...d,...d->...", row_sums, row_sums)[..., None] / row_sums.shape[-1])
    ratios = row_sums / np.where(scales > 0.0, scales, 1.0)
    powers = np.rint(np.log2(np.maximum(ratios, 2.0**_LEAST_POWER)))
    return np.asarray(np.ldexp(scales, powers.astype(np.int64)))
