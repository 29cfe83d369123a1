"""What is wrong with a set of features: a constant function in their span, or features that depend on each other.

Either makes the TD system singular (Tsitsiklis and Van Roy 1999, "Average cost temporal-difference learning",
assumption 2): weights then drift along a direction that changes nothing.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

EXACT = 1e-9
"""A relative residual below it is rounding."""


@dataclass(frozen=True, slots=True)
class FeatureSpan:
    """What the features of some states span.

    Attributes:
        constant_residual: min over x of ‖Φx − 1‖ / ‖1‖, 0 to 1: how far the constant is from the span.
        rank: of Φ, its columns scaled to length one.
        used: columns that are not zero everywhere; those that are say nothing of the others.
        states: rows of Φ: all that there are, or several times as many as features, or this says nothing.
    """

    constant_residual: float
    rank: int
    used: int
    states: int

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"]) -> "FeatureSpan":
        """Of n states; by a QR factorisation with the constant as the last column, so that no digit is lost."""
        states = len(features)
        columns: np.ndarray = features[:, features.any(axis=0)]
        used = columns.shape[1]
        if not used:
            return cls(1.0, 0, 0, states)
        columns = columns / np.linalg.norm(columns, axis=0)
        constant = np.full((states, 1), 1.0 / np.sqrt(states))
        upper: np.ndarray = np.linalg.qr(np.concatenate([columns, constant], axis=1), mode="r")  # type: ignore[assignment]
        weights, _, rank, _ = np.linalg.lstsq(upper[:, :used], upper[:, used], rcond=EXACT)
        return cls(float(np.linalg.norm(upper[:, :used] @ weights - upper[:, used])), int(rank), used, states)

    @property
    def has_constant(self) -> bool:
        """Whether the constant is represented exactly."""
        return self.constant_residual < EXACT

    @property
    def dependent(self) -> int:
        """How many features follow from the others."""
        return self.used - self.rank


def smallest_eigenvalue(system: Float[np.ndarray, "d d"]) -> float:
    """That of ½ (A + Aᵀ), A = E[φ (φ − φ')ᵀ], minus the paper's: 0 where a function in the span is constant."""
    return float(np.linalg.eigvalsh(0.5 * (system + system.T))[0])
