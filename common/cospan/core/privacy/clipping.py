"""The clip: how much one agent can say in one round, over everything that it sends.

An upload has up to four fields: the gradient G, the second moment of the heads, pooled numbers, and the agent's
weight ω (the last of the pooled numbers where the method has a head covariance). They differ in size and unit, so
each has a bound c_j, and what is bounded is the norm of all of them together,

    ‖x‖_c = (Σ_j ‖x_j‖² / c_j²)^(1/2) ≤ 1.

An upload beyond it is multiplied as a whole by 1 / ‖x‖_c. With `practical` G, K and ω of an agent all have the
factor ω, so a clipped agent is one with less weight in the step, and nothing else of it changes. The count of the
agents is the same with every data, and is not part of the norm.
"""

import math
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, to_dense
from cospan.core.method import Method
from cospan.core.secure_sums.layout import Layout


@dataclass(frozen=True, slots=True)
class Bounds:
    """c_j, all above 0, in the units of what is sent; bounds of fields that a run does not send are of no effect.

    Attributes:
        gradient: of ‖G‖_F.
        moment: of the norm of the upper triangle of the heads' second moment.
        pooled: of the norm of the pooled numbers, without the weight.
        influence: of the weight ω.
    """

    gradient: float
    moment: float
    pooled: float
    influence: float

    def __post_init__(self) -> None:
        """Refuses bounds that are not above 0, with which a field would be sent without noise.

        Raises:
            ValueError: a bound is not above 0, or not finite.
        """
        for field in fields(self):
            bound = getattr(self, field.name)
            if not 0.0 < bound < math.inf:
                raise ValueError(f"the bound {field.name} of the clip is {bound:g}; it must be above 0")

    def of_words(self, layout: Layout, method: Method) -> Float[np.ndarray, " words"]:
        """c_j of every word of a round's vector; 0 of the check word."""
        bounds = np.full(layout.words, self.gradient)
        counted = layout.gradient_words + layout.moment_words
        bounds[layout.gradient_words : counted] = self.moment
        bounds[counted] = 0.0
        bounds[counted + 1 :] = self.pooled
        if layout.pooled_length and method.has_head_covariance:
            bounds[-1] = self.influence
        return bounds


def bounded_norm(contribution: Contribution, bounds: Bounds, method: Method) -> float:
    """‖x‖_c of one agent's contribution; not finite where one of its numbers is not."""
    squares = float(np.sum(to_dense(contribution.gradient) ** 2)) / bounds.gradient**2
    if contribution.head_second_moment is not None:
        triangle = contribution.head_second_moment[np.triu_indices(len(contribution.head_second_moment))]
        squares += float(np.sum(triangle**2)) / bounds.moment**2
    if contribution.pooled is not None:
        numbers = contribution.pooled
        if method.has_head_covariance:
            squares += float(numbers[-1]) ** 2 / bounds.influence**2
            numbers = numbers[:-1]
        squares += float(np.sum(numbers**2)) / bounds.pooled**2
    return float(np.sqrt(squares))


def clipped(contribution: Contribution, bounds: Bounds, method: Method, limit: float = 1.0) -> Contribution:
    """One agent's contribution, multiplied by min(1, limit / ‖x‖_c); the count of agents stays 1.

    Raises:
        ValueError: a number is not finite, or the contribution is of several agents: each is clipped by itself.
    """
    if contribution.weight != 1.0:
        raise ValueError(f"the contribution is of {contribution.weight:g} agents; each is clipped by itself")
    norm = bounded_norm(contribution, bounds, method)
    if not np.isfinite(norm):
        raise ValueError("the contribution has a number that is not finite, or too large for its square")
    if norm <= limit:
        return contribution
    factor = limit / norm
    moment, pooled = contribution.head_second_moment, contribution.pooled
    return replace(
        contribution,
        gradient=DenseMatrix(factor * to_dense(contribution.gradient)),
        head_second_moment=None if moment is None else factor * moment,
        pooled=None if pooled is None else factor * pooled,
    )
