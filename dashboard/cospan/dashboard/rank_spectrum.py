"""The spectrum of the heads' second moment, and what it suggests about the rank."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_IDLE_SHARE = 0.01
"""A direction with less than this fraction of an even share is idle."""
_ALIKE_SHARE = 0.5
"""If the smallest share exceeds this fraction of an even share, all directions are used about equally."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The eigenvalues of W̄ = mean of w wᵀ over the fleet as shares of its trace, and what they suggest.

    Attributes:
        shares: r shares, largest first; their sum is 1.
        agents: number of agents in the mean.
        verdict: `idle`, `full` or `fits`.
        sentence: the same in words.
    """

    shares: tuple[float, ...]
    agents: float
    verdict: str
    sentence: str


def spectrum_of(moment: Float[np.ndarray, "r r"], agents: float) -> Spectrum | None:
    """The spectrum of a sum of second moments; None where it is zero.

    The shares do not depend on the basis of the subspace. A direction without a share contributes to no value
    function. Heads are estimates, so noise keeps shares above zero: the verdict is a hint, and cospan rank
    measures.
    """
    values = np.maximum(np.linalg.eigvalsh((moment + moment.T) / 2.0)[::-1], 0.0)
    total = float(values.sum())
    if not 0.0 < total < np.inf:
        return None
    shares = tuple(float(value) for value in values / total)
    verdict, sentence = _verdict(shares)
    return Spectrum(shares, agents, verdict, sentence)


def _verdict(shares: tuple[float, ...]) -> tuple[str, str]:
    r = len(shares)
    idle = sum(share < _IDLE_SHARE / r for share in shares)
    if r == 1:
        return "fits", "With one direction there is nothing to compare; cospan rank tells whether more would help."
    if idle:
        most = f"the last {idle} carry" if idle > 1 else "the last one carries"
        return (
            "idle",
            f"Of {r} directions {most} hardly anything of the heads: the rank looks larger than it need be. "
            "cospan rank measures it.",
        )
    if shares[-1] > _ALIKE_SHARE / r:
        return (
            "full",
            f"All {r} directions are used about alike. That is so where the rank is right, and where it is too "
            "small: cospan rank tells which.",
        )
    return "fits", f"All {r} directions are used, the last ones less: no sign that the rank is wrong."
