"""The preset `practical` with one of its parts left out (docs/adr/0023)."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType, ModuleType

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation import basis_update, evidence_step
from cospan.core.learning import posterior
from cospan.core.learning.learner_state import Trajectory
from cospan.core.method import Method
from cospan.core.uncertainty.mixture import DiagonalInformation, Mixture, mixed
from cospan.experiments.methods.compared_methods import JointFleet, WrappedFleet

_SHARE = 0.5
"""The share of a whole scoring step by which W moves, as in the preset; ζ is that of the basis alone here."""

_Answers = tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]


@dataclass(frozen=True, eq=False, slots=True)
class PosteriorAblation(WrappedFleet):
    """`practical` without one of its parts; everything else is `JointFleet` of `compared_methods`.

    Attributes:
        left_out: a key of `POSTERIOR_ABLATIONS`.
    """

    left_out: str

    @classmethod
    def initial(
        cls, left_out: str, method: Method, basis: Float[np.ndarray, "d r"], agents: int
    ) -> "PosteriorAblation":
        """Of n agents without data.

        Raises:
            ValueError: the method's head updates are not posterior ones.
        """
        if not method.has_head_covariance:
            raise ValueError(f"{left_out} leaves out a part of posterior head updates; the method has others")
        return cls(JointFleet.initial(method, basis, agents), left_out)

    def learning_from(self, trajectories: Sequence[Trajectory]) -> "PosteriorAblation":
        """One round."""
        with _without(self.left_out):
            return replace(self, joint=self.joint.learning_from(trajectories))

    @property
    def weights(self) -> Float[np.ndarray, "1 n d"]:
        """Posterior means given all transitions, or what stands for them."""
        with _without(self.left_out):
            return self.joint.weights


@contextlib.contextmanager
def _without(left_out: str) -> Iterator[None]:
    """What stands for the part, in its module, for the time of the block.

    The core has no switches for parts that no run is to leave out. An experiment has processes of one thread, so
    that no other method meets the substitute.
    """
    module, name, substitute = POSTERIOR_ABLATIONS[left_out]
    usual = getattr(module, name)
    setattr(module, name, substitute)
    try:
        yield
    finally:
        setattr(module, name, usual)


def _answering(answer: Callable[[Mixture], Float[np.ndarray, " d"]]) -> Callable[..., _Answers]:
    """`mixed_means` with this answer of one agent's mixture."""

    def means(
        data: DiagonalInformation,
        factor: Float[np.ndarray, "d r"],
        unit: Float[np.ndarray, " 1"],
        alone: tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]],
    ) -> _Answers:
        mixture = mixed(data, factor, unit, alone)
        return answer(mixture), mixture.means[0]

    return means


def _of_least_risk(mixture: Mixture) -> Float[np.ndarray, " d"]:
    """The answer of the one ψ whose estimated risk is least, or LSTD alone."""
    return mixture.means[int(np.argmax(mixture.chances))]


def _without_lstd(mixture: Mixture) -> Float[np.ndarray, " d"]:
    chances = mixture.chances[:-1]
    total = float(chances.sum())
    # With LSTD alone all but certain, the others' chances are rounding: then the largest ψ is what is nearest.
    if total < np.finfo(np.float64).tiny:
        return mixture.means[-2]
    return np.asarray((chances / total) @ np.stack(mixture.means[:-1]))


def _constant_variance(
    products: Float[np.ndarray, "d1 d1"], right: Float[np.ndarray, "d1 1"], steps: int
) -> Float[np.ndarray, " d1"]:
    """`regressed` on the constant alone: the mean of δ² in every state."""
    model = np.zeros(len(products))
    model[0] = right[0, 0] / steps
    return model


def _first_order(
    basis: Float[np.ndarray, "d r"],
    head_covariance: Float[np.ndarray, "r r"],
    gradient: Float[np.ndarray, "d r"],
    curvature: Float[np.ndarray, "d d"],
    agents: float,
    *,
    share: float,
    largest_turn: float,
) -> tuple[Float[np.ndarray, "d r"], Float[np.ndarray, "r r"], Float[np.ndarray, "d r"]]:
    """`evidence_step` with one curvature κ in all directions outside the basis, its mean there, times ½ / ζ.

    Within the basis it stays as it is, and so does the step of W.
    """
    dim, rank = basis.shape
    inner = basis.T @ curvature @ basis
    outside = (np.trace(curvature) - np.trace(inner)) / max(1, dim - rank) * _SHARE / share
    flat = basis @ inner @ basis.T + outside * (np.eye(dim) - basis @ basis.T)
    return _usual_step(
        basis,
        head_covariance,
        gradient,
        (flat + flat.T) / 2.0,
        agents,
        share=_SHARE,
        largest_turn=largest_turn,
    )


_usual_step = evidence_step.evidence_step

POSTERIOR_ABLATIONS: Mapping[str, tuple[ModuleType, str, object]] = MappingProxyType(
    {
        "no-own-part": (posterior, "mixed_means", _answering(lambda mixture: mixture.means[0])),
        "one-own-part": (posterior, "mixed_means", _answering(_of_least_risk)),
        "no-lstd-answer": (posterior, "mixed_means", _answering(_without_lstd)),
        "one-variance": (posterior, "regressed", _constant_variance),
        "no-shrinkage": (evidence_step, "NOISE_SHARE", 0.0),
        "no-curvature": (basis_update, "evidence_step", _first_order),
    }
)
"""Module, name and substitute of each part.

no-own-part: the answer of the smallest ψ alone, so that nothing outside the subspace is left to the agent.
one-own-part: the answer of the least estimated risk, in place of the mixture.
no-lstd-answer: LSTD alone is not in the mixture.
one-variance: δ has the same variance in all states.
no-shrinkage: W is the agents' covariance less its noise, whatever their number.
no-curvature: first-order steps of the basis.
"""
