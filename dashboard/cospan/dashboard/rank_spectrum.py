"""How much of the heads lies along each direction of the basis, and what that says about the rank."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.evidence_step import rank_in_use

_IDLE_SHARE = 0.01
"""Of second moments: a direction with less than this fraction of an even share is idle."""
_ALIKE_SHARE = 0.5
"""Of second moments: above this fraction of an even share, all directions are used about equally."""
_UNLEARNT = 1e-6
"""Relative difference of the eigenvalues of W, which begins as the identity."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Eigenvalues over the fleet's heads as shares of their sum, and what they suggest.

    Attributes:
        shares: r shares, largest first; their sum is 1.
        in_use: directions that are used, 1 to r; the others are idle.
        source: `covariance` for the head covariance W, `moments` for the heads' second moments.
        verdict: `unlearnt`, `idle`, `full` or `fits`.
        sentence: the same in words.
    """

    shares: tuple[float, ...]
    in_use: int
    source: str
    verdict: str
    sentence: str


def spectrum_of_covariance(covariance: Float[np.ndarray, "r r"]) -> Spectrum | None:
    """The spectrum of W, which maximises the evidence of the fleet; None where it is zero or not finite.

    The directions in use are those that the run's result counts (`rank_in_use`).
    """
    shares = _shares(covariance)
    if shares is None:
        return None
    if len(shares) > 1 and shares[0] - shares[-1] <= _UNLEARNT * shares[0]:
        sentence = "Nothing is learnt yet: the head covariance is as the run began with it."
        return Spectrum(shares, len(shares), "covariance", "unlearnt", sentence)
    in_use = rank_in_use(covariance)
    return Spectrum(shares, in_use, "covariance", *_verdict_of_evidence(len(shares), in_use))


def spectrum_of_moments(moment: Float[np.ndarray, "r r"]) -> Spectrum | None:
    """The spectrum of a sum of second moments w wᵀ; None where it is zero or not finite.

    The shares do not depend on the basis of the subspace. Heads are estimates, so noise keeps shares above zero:
    the verdict is a hint, and cospan rank measures.
    """
    shares = _shares(moment)
    if shares is None:
        return None
    r = len(shares)
    in_use = sum(share >= _IDLE_SHARE / r for share in shares)
    alike = shares[-1] > _ALIKE_SHARE / r
    return Spectrum(shares, in_use, "moments", *_verdict_of_moments(r, in_use, alike=alike))


def _shares(matrix: Float[np.ndarray, "r r"]) -> tuple[float, ...] | None:
    if not np.isfinite(matrix).all():
        return None
    values = np.maximum(np.linalg.eigvalsh((matrix + matrix.T) / 2.0)[::-1], 0.0)
    total = float(values.sum())
    return tuple(float(value) for value in values / total) if 0.0 < total < np.inf else None


def _verdict_of_evidence(r: int, in_use: int) -> tuple[str, str]:
    if in_use < r:
        return (
            "idle",
            f"Rank in use: {in_use} of {r}. The fleet has switched the other directions off: they cost uploads, "
            f"not accuracy. A new run can do with --rank {in_use}.",
        )
    return (
        "full",
        f"Rank in use: all {r}. The fleet shares every direction that it may; cospan rank measures whether more "
        "would help.",
    )


def _verdict_of_moments(r: int, in_use: int, *, alike: bool) -> tuple[str, str]:
    idle = r - in_use
    if r == 1:
        return "fits", "With one direction there is nothing to compare; cospan rank tells whether more would help."
    if idle:
        most = f"the last {idle} carry" if idle > 1 else "the last one carries"
        return (
            "idle",
            f"Of {r} directions {most} hardly anything of the heads: the rank looks larger than it need be. "
            "cospan rank measures it.",
        )
    if alike:
        return (
            "full",
            f"All {r} directions are used about alike. That is so where the rank is right, and where it is too "
            "small: cospan rank tells which.",
        )
    return "fits", f"All {r} directions are used, the last ones less: no sign that the rank is wrong."
