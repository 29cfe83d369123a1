"""Parameters without constraints as a basis of rank one: how a network's weights travel in a run.

The coordinator's step (eq. 8 and QR) keeps a basis orthonormal. For r = 1 that is a point on the unit sphere, and
central projection maps the half sphere about the first basis b_0 to a flat space of one dimension less, the space
of the parameters. A mean of displacements of the parameters, sent as a d × 1 gradient, then moves the parameters by
that mean, up to a factor that is near 1: the orthonormalised step is federated averaging (McMahan et al. 2017,
"Communication-efficient learning of deep networks from decentralized data", AISTATS), with all that the coordinator
does for gradients: rounds, quorum, robust aggregation, storage, relays.

With y = (θ − θ_0)/c, H the reflection that takes b_0 to the last unit vector, and x = (y, 1):

    b = H x / ‖x‖        G = H (Δ/c, 0) / ‖x‖

and Q of b + (I − b bᵀ) Ḡ is the point of θ + Δ̄/(1 − α), α = yᵀΔ̄ / (c ‖x‖²).
"""

import numpy as np
from jaxtyping import Float

_LEAST_LAST = 1e-3
"""The smallest last entry of H b: beyond, θ would be a thousand times its scale from where it began."""


class ParameterChart:
    """The map between p parameters and bases of shape (p + 1, 1)."""

    def __init__(
        self, origin: Float[np.ndarray, " p"], first_basis: Float[np.ndarray, "d 1"], scale: float
    ) -> None:
        """Sets the parameters of the first basis.

        Args:
            origin: θ_0, what the first basis stands for, shape (p,).
            first_basis: b_0 of unit length, shape (p + 1, 1).
            scale: c, about how far parameters move over a run, above 0; the factor 1/(1 − α) of a step is within
                ‖Δ̄‖/(2c) of 1.

        Raises:
            ValueError: the shapes do not belong together, or the scale is not above 0.
        """
        if first_basis.shape != (len(origin) + 1, 1):
            raise ValueError(
                f"a basis of {len(origin)} parameters is {len(origin) + 1} × 1, not {first_basis.shape}"
            )
        if not scale > 0.0:
            raise ValueError(f"scale is {scale}; it must be above 0")
        self.origin, self.scale = origin.astype(np.float64), scale
        normal = first_basis[:, 0].astype(np.float64)
        normal[-1] -= 1.0
        length = float(np.linalg.norm(normal))
        self._normal = normal / length if length > 0.0 else normal

    def parameters(self, basis: Float[np.ndarray, "d 1"]) -> Float[np.ndarray, " p"]:
        """θ = θ_0 + c y, shape (p,).

        Raises:
            ValueError: the basis is a quarter turn or more from the first one, so it stands for no parameters.
        """
        reflected = self._reflected(basis[:, 0])
        if not reflected[-1] > _LEAST_LAST:
            raise ValueError("the basis is a quarter turn from the first one: it stands for no parameters")
        return np.asarray(self.origin + self.scale * (reflected[:-1] / reflected[-1]))

    def basis(self, parameters: Float[np.ndarray, " p"]) -> Float[np.ndarray, "d 1"]:
        """b of θ, shape (p + 1, 1)."""
        x = np.append((parameters - self.origin) / self.scale, 1.0)
        return self._reflected(x / np.linalg.norm(x))[:, None]

    def gradient(
        self, parameters: Float[np.ndarray, " p"], moved_by: Float[np.ndarray, " p"]
    ) -> Float[np.ndarray, "d 1"]:
        """G, shape (p + 1, 1): what is sent for a displacement Δ of the parameters from θ; ζ = 1 takes it whole."""
        y = (parameters - self.origin) / self.scale
        flat = np.append(moved_by / self.scale, 0.0) / np.sqrt(1.0 + y @ y)
        return self._reflected(flat)[:, None]

    def _reflected(self, vector: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
        """H v = v − 2 n (nᵀ v), with the unit normal n of the mirror between b_0 and the last axis."""
        return np.asarray(vector - 2.0 * self._normal * (self._normal @ vector))
