"""The joint method with one of its parts left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import mean_gradient
from cospan.core.learning.learner import contribution_of
from cospan.core.learning.learner_state import Trajectory
from cospan.core.linalg.subspace import orthonormalise, tangent_projection
from cospan.core.method import Method
from cospan.experiments.methods.compared_methods import JointFleet, WrappedFleet

ABLATIONS = ("no-tangent", "no-qr", "no-sign-fix", "rotated-heads")


@dataclass(frozen=True, eq=False, slots=True)
class AblatedFleet(WrappedFleet):
    """Algorithm 1 without one of its parts; everything else is `JointFleet` of `compared_methods`.

    Attributes:
        left_out: one of `ABLATIONS`. no-tangent: the mean gradient itself moves the basis. no-qr: the moved basis
            is not orthonormalised. no-sign-fix: the signs of the QR are LAPACK's. rotated-heads: every head is
            multiplied with R of the QR, so that B w stays as it was (Algorithm 1 throws R away).
    """

    left_out: str

    @classmethod
    def initial(cls, left_out: str, method: Method, basis: Float[np.ndarray, "d r"], agents: int) -> "AblatedFleet":
        """Of n agents whose heads are zero."""
        return cls(JointFleet.initial(method, basis, agents), left_out)

    def learning_from(self, trajectories: Sequence[Trajectory]) -> "AblatedFleet":
        """One round; a fleet whose basis is not finite has diverged and stays unchanged."""
        joint = self.joint
        if not np.isfinite(joint.basis).all():
            return self
        outcomes = joint.outcomes(trajectories)
        gradient = mean_gradient([contribution_of(outcome, joint.method) for outcome in outcomes])
        direction = gradient if self.left_out == "no-tangent" else tangent_projection(joint.basis, gradient)
        basis, turn = self._orthonormalised(joint.basis + joint.step * direction)
        after = replace(joint.after(outcomes), basis=basis, numbers_sent=0)
        if self.left_out == "rotated-heads":
            states = tuple(replace(state, head=turn @ state.head) for state in after.states)
            after = replace(after, states=states)
        return replace(self, joint=after)

    def _orthonormalised(
        self, moved: Float[np.ndarray, "d r"]
    ) -> tuple[Float[np.ndarray, "d r"], Float[np.ndarray, "r r"]]:
        """The next basis, and the factor of rotated heads."""
        if self.left_out == "no-qr" or not np.isfinite(moved).all():
            return moved, np.eye(moved.shape[1])
        if self.left_out == "no-sign-fix":
            return np.linalg.qr(moved)[0], np.eye(moved.shape[1])
        basis = orthonormalise(moved)
        return basis, basis.T @ moved

    @property
    def basis(self) -> Float[np.ndarray, "d r"] | None:
        """An orthonormal basis of the span; None once it is no longer finite."""
        return np.linalg.qr(self.joint.basis)[0] if np.isfinite(self.joint.basis).all() else None
