"""The sum of some of a round's contributions, as one: the mean is linear, so nothing is approximated."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, to_dense


def sum_of_contributions(contributions: Sequence[Contribution]) -> Contribution:
    """Σ of gradients, weights, second moments and row sums, each accumulated in float64 in the order given.

    A second moment, or row sums, that one of them does not carry the sum does not carry either.

    Raises:
        ValueError: there is no contribution.
    """
    if not contributions:
        raise ValueError("the sum of no contributions is undefined")
    return Contribution(
        gradient=DenseMatrix(_total([to_dense(each.gradient) for each in contributions])),
        weight=float(sum(each.weight for each in contributions)),
        head_second_moment=_total_of_present([each.head_second_moment for each in contributions]),
        row_sums=_total_of_present([each.row_sums for each in contributions]),
    )


def _total(parts: Sequence[Float[np.ndarray, "*shape"]]) -> Float[np.ndarray, "*shape"]:
    total = parts[0].astype(np.float64)  # a copy: what came in is not written to
    for part in parts[1:]:
        total += part
    return total


def _total_of_present(parts: Sequence[Float[np.ndarray, "*shape"] | None]) -> Float[np.ndarray, "*shape"] | None:
    present = [part for part in parts if part is not None]
    return _total(present) if len(present) == len(parts) else None
