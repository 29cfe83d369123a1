"""Differential privacy as a run has it: its mechanism in a round, the vector of a process, and what has been spent.

A run over the network, a run in one process and the coordinator all take the numbers from here.
"""

from dataclasses import dataclass, replace

import numpy as np

from cospan.core.aggregation.basis_update import BasisMove, Contribution
from cospan.core.privacy.accounting import epsilon_of_vectors
from cospan.core.privacy.clipping import Bounds
from cospan.core.privacy.mechanism import Mechanism
from cospan.core.privacy.repair import limited, repaired
from cospan.core.privacy.word_source import WordSource
from cospan.core.secure_sums.fixed_point import Encoded, encode
from cospan.core.secure_sums.layout import layout_of
from cospan.core.specification import RunSpecification

_NOT_SENT = 1.0
"""The bound of the heads' second moment, which no run with differential privacy sends."""


def sharers_of(agents: int) -> int:
    """h = n − ⌊n/4⌋: a quarter of the agents of an epoch may collude, as in the graph of secure sums."""
    return agents - agents // 4


def mechanism_of(specification: RunSpecification, round_number: int, agents: int) -> Mechanism:
    """Clip and noise of round t in an epoch of n agents; the run has differential privacy."""
    spec = specification
    return Mechanism(
        layout=layout_of(spec, round_number),
        method=spec.method,
        bounds=Bounds(spec.dp_gradient_bound, _NOT_SENT, spec.dp_curvature_bound, spec.dp_influence_bound),
        multiplier=spec.dp_noise_multiplier,
        sharers=sharers_of(agents),
    )


def mechanism_problem(specification: RunSpecification) -> str:
    """Why agents could not send in this run, in an epoch of all agents or in the smallest; empty where they can."""
    if not specification.is_private:
        return ""
    sizes = (specification.agents, max(1, specification.min_cohort))
    problems = (mechanism_of(specification, 0, agents).problem() for agents in sizes)
    return next((problem for problem in problems if problem), "")


def vector_of(
    contribution: Contribution, specification: RunSpecification, round_number: int, agents: int, source: WordSource
) -> Encoded:
    """What a process sends of round t, before masks; with differential privacy clipped and with its share of noise.

    Args:
        contribution: what its agent learnt.
        specification: of the run, with secure sums.
        round_number: t.
        agents: n, of all members of the epoch; without differential privacy of no effect.
        source: of the noise, likewise; drawn from once for a round.

    Raises:
        ValueError: a number is not finite, or the contribution has not the form of the round; or the run has
            differential privacy, and it is of several agents, or the noise does not fit the fixed point.
    """
    if not specification.is_private:
        return encode(contribution, layout_of(specification, round_number))
    return Encoded(mechanism_of(specification, round_number, agents).sent([contribution], source))


def read_sum(summed: Contribution, specification: RunSpecification, round_number: int) -> Contribution:
    """The sum of a round as the step takes it: repaired with differential privacy, else as it is.

    A sum of weights above the number of agents is noise, and becomes that number.
    """
    if not specification.is_private:
        return summed
    agents = int(summed.weight)
    deviations = mechanism_of(specification, round_number, agents).deviations_of_sum(agents)
    found = repaired(summed, specification.method, deviations)
    if found.pooled is None:
        return found
    weight = min(float(found.pooled[-1]), found.weight)
    return replace(found, pooled=np.append(found.pooled[:-1], weight))


def move_of(move: BasisMove, agents: float, specification: RunSpecification, round_number: int) -> BasisMove:
    """What a noisy sum over n agents does to basis and head covariance: limited, with differential privacy."""
    if not specification.is_private:
        return move
    deviations = mechanism_of(specification, round_number, int(agents)).deviations_of_sum(int(agents))
    return limited(move, deviations, agents)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run has cost of its budget.

    Attributes:
        vectors: how many an agent has sent at most.
        of_vectors: how many it may send.
        epsilon: ε that they have cost, for δ.
        of_epsilon: ε that is promised.
        delta: δ.
    """

    vectors: int
    of_vectors: int
    epsilon: float
    of_epsilon: float
    delta: float

    def __str__(self) -> str:
        delta = f"{self.delta:g}".replace("e-0", "e-")
        return (
            f"ε spent {self.epsilon:.2f} of {self.of_epsilon:g} (δ {delta}), {self.vectors} of {self.of_vectors} "
            "vectors"
        )

    def as_dict(self) -> dict[str, float]:
        """Plain values under the names of the attributes."""
        return {
            "epsilon_spent": self.epsilon,
            "epsilon": self.of_epsilon,
            "delta": self.delta,
            "vectors_sent": self.vectors,
            "vectors": self.of_vectors,
        }


def spent_after(specification: RunSpecification, vectors: int) -> Spent | None:
    """What that many vectors of an agent cost; None in a run without differential privacy."""
    spec = specification
    if not spec.is_private:
        return None
    vectors = min(vectors, spec.dp_vectors)
    found = epsilon_of_vectors(spec.dp_noise_multiplier, vectors, spec.dp_delta)
    return Spent(vectors, spec.dp_vectors, found, spec.dp_epsilon, spec.dp_delta)


def most_sent(rounds: int, incarnation: int, *, is_open: bool) -> int:
    """How many vectors an agent can have sent, as its coordinator knows.

    One for each round that was opened, and one more for each start of the coordinator after the first: the round
    that was open then is opened again, and an agent that was started again as well sends another vector for it.

    Args:
        rounds: closed, void ones included.
        incarnation: of the coordinator, 1 or more.
        is_open: whether another round is open.
    """
    return rounds + int(is_open) + max(0, incarnation - 1)
