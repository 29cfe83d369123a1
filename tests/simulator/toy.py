"""The arithmetic of simulated runs, and a model of the whole protocol that is ten lines long.

Gradients are multiples of 2^-20, so that their sums are exact in any order and in the fixed point of secure sums,
and a basis is made of what goes into it as a checksum is: one gradient that is missing, of another round or of
another basis changes every number of it.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import BasisMove, Contribution
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.specification import RunSpecification
from cospan.server.machine.events import BasisComputed, ComputeBasis
from cospan.server.runtime.basis_arithmetic import sum_of_vectors
from cospan.wire.errors import InvalidMessageError

D, R = 2, 1
_STEPS = 1 << 20


def _numbers(seed: bytes) -> Float[np.ndarray, "d r"]:
    first = zlib.crc32(seed)
    second = zlib.crc32(seed, first)
    return np.array([[first % _STEPS / _STEPS - 0.5], [second % _STEPS / _STEPS - 0.5]])


def gradient(agent: str, number: int, basis: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "d r"]:
    """What an agent learns in a round at a basis."""
    return _numbers(f"{agent} {number}".encode() + basis.tobytes())


def contribution(agents: Sequence[str], number: int, basis: Float[np.ndarray, "d r"]) -> Contribution:
    """The sum over the agents of one process."""
    total = sum((gradient(agent, number, basis) for agent in agents), np.zeros((D, R)))
    return Contribution(DenseMatrix(total), float(len(agents)))


def next_basis(basis: Float[np.ndarray, "d r"], total: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "d r"]:
    """The basis after a round whose gradients have this sum."""
    return _numbers((total + 0.0).tobytes() + basis.tobytes())


def computed(command: ComputeBasis, specification: RunSpecification) -> BasisComputed:
    """What the arithmetic of a coordinator answers; a secure sum that is none makes the round void."""
    contributions = list(command.contributions)
    if specification.secure_sums:
        try:
            contributions = [sum_of_vectors(command, specification)]
        except InvalidMessageError as refusal:
            stays = BasisMove(command.basis, command.basis)
            return BasisComputed(command.round, stays, void_cause=str(refusal))
    total = np.zeros((D, R))
    for each in contributions:
        assert isinstance(each, Contribution)
        assert isinstance(each.gradient, DenseMatrix)
        total = total + each.gradient.values
    return BasisComputed(command.round, BasisMove(command.basis, next_basis(command.basis, total)))


def model(
    bases: Mapping[int, Float[np.ndarray, "d r"]], number: int, contributors: Mapping[str, int]
) -> Float[np.ndarray, "d r"]:
    """The protocol: a round sums the gradients of its contributors, each at the basis of its round."""
    total = np.zeros((D, R))
    for agent, of in contributors.items():
        total = total + gradient(agent, of, bases[of])
    return next_basis(bases[number], total)
