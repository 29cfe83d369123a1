"""How large the numbers of a message may be: so that no peer can make a round's arithmetic overflow or fail.

Every entry of a gradient, of a product of factors, of a second moment and of what is pooled is at most 1e60; in a
sum over n agents at most n times that, so what was taken from each alone is taken as a sum as well. With that every
step of `cospan.core.aggregation.basis_update.next_basis` stays finite: the sum over a million agents is below 1e67;
preconditioning divides by no less than 1e-60 times its floor, and a square of what it gives is about 1e243; row
scaling multiplies by 1e61 at most; float64 ends at 1.8e308. An honest entry is a product of errors and heads
summed over a round: rewards of 1e12 over a million steps come to about 1e36.
"""

import numpy as np
from jaxtyping import Float, Shaped

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, Gradient
from cospan.core.linalg.subspace import is_second_moment
from cospan.wire.errors import InvalidMessageError
from cospan.wire.limits import MAX_GROUP

MAX_ENTRY = 1e60
_SUMMED = 1.0 + 1e-6
"""How far a sum of numbers of at most 1 may exceed their count, by rounding to float32."""
MAX_BASIS_ENTRY = 1.0 + 1e-6
"""In size: the columns of a basis have length one, but for the last digits of float32."""


def check_contribution(
    contribution: Contribution, *, pooled_is_nonnegative: bool = True, pools_weight: bool = False
) -> None:
    """Checks that a contribution, whose shapes are checked, is fit for arithmetic.

    Args:
        contribution: what a session gives to a round.
        pooled_is_nonnegative: whether its pooled numbers are row sums (`Method.pooled_is_nonnegative`).
        pools_weight: whether the last of them is the agents' weight in the step (`Method.has_head_covariance`).

    Raises:
        InvalidMessageError: an entry is not finite or too large; or row sums, a weight, or a second moment cannot
            be such.
    """
    most = most_of(contribution.weight)
    _check_gradient(contribution.gradient, most)
    if contribution.pooled is not None:
        _check_size("gradient.pooled", largest(contribution.pooled), most)
        if pooled_is_nonnegative and contribution.pooled.min() < 0.0:
            raise InvalidMessageError("gradient.pooled has a negative entry")
        if pools_weight and not 0.0 < contribution.pooled[-1] <= _SUMMED * contribution.weight:
            raise InvalidMessageError(
                f"gradient.pooled ends with {contribution.pooled[-1]:.3g}; the weight of {contribution.weight:g} "
                "agents "
                f"in the step is above 0 and at most {contribution.weight:g}"
            )
    moment = contribution.head_second_moment
    if moment is not None:
        _check_size("gradient.head_second_moment", largest(moment), most)
        if not is_second_moment(moment):
            raise InvalidMessageError(
                "gradient.head_second_moment is not symmetric and positive semidefinite; it must be a sum of w wᵀ"
            )


def check_basis(basis: Float[np.ndarray, "d r"], field: str) -> None:
    """Checks that an agent can use a basis: no entry is larger than one of orthonormal columns can be.

    Raises:
        InvalidMessageError: one is.
    """
    size = largest(basis)
    if not size <= MAX_BASIS_ENTRY:
        raise InvalidMessageError(
            f"{field} has an entry of {size:.3g} in size; the columns of a basis are orthonormal, so at most 1"
        )


def check_head_covariance(covariance: Float[np.ndarray, "r r"], field: str) -> None:
    """Checks that a matrix whose shape is checked can be the covariance of heads.

    Raises:
        InvalidMessageError: an entry is not finite or too large; or it is not symmetric and positive semidefinite.
    """
    _check_size(field, largest(covariance), MAX_ENTRY)
    if not is_second_moment(covariance):
        raise InvalidMessageError(
            f"{field} is not symmetric and positive semidefinite; it must be the covariance of the heads"
        )


def most_of(weight: float) -> float:
    """How large an entry of a sum over `weight` agents may be."""
    return MAX_ENTRY * min(max(weight, 1.0), float(MAX_GROUP))


def _check_gradient(gradient: Gradient, most: float) -> None:
    if isinstance(gradient, DenseMatrix):
        if not is_within(gradient.values, most):
            _check_size("gradient.dense", largest(gradient.values), most)
        return
    # Multiplied as Python's floats, which are float64 whatever the factors are; an overflow is inf, and too large.
    bound = gradient.left.shape[1] * largest(gradient.left) * largest(gradient.right)
    _check_size("the product of gradient.factored", bound, most)


def _check_size(field: str, largest: float, most: float) -> None:
    if not largest <= most:  # nor is NaN
        raise InvalidMessageError(f"{field} has an entry of up to {largest:.3g} in size; at most {most:g} is taken")


def is_within(values: Shaped[np.ndarray, "..."], most: float) -> bool:
    """Whether no entry is larger in size than `most`, nor is NaN."""
    # Mostly the root of the sum of all squares is far below, which takes a quarter of the time to see. Of numpy's
    # products of vectors this is the one that does not warn of an overflow.
    return float(np.vdot(values, values)) <= 0.25 * most * most or largest(values) <= most


def largest(values: Shaped[np.ndarray, "..."]) -> float:
    """The size of the largest entry, with no copy of the array made; NaN where one is NaN."""
    # Rather than `values.min()`, which is this and a Python function around it.
    return max(-float(np.minimum.reduce(values, axis=None)), float(np.maximum.reduce(values, axis=None)))
