"""Agents that send something other than their gradients."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.learning.learner_state import Trajectory
from cospan.core.linalg.matrices import DenseMatrix, to_dense
from cospan.experiments.methods.compared_methods import WrappedFleet

_TAG = 0x6C696172  # "liar": keeps these draws apart from others of the same seed


@dataclass(frozen=True, slots=True)
class Attack:
    """What the last agents of a fleet send in place of their gradients; the rest of an upload is unchanged.

    Attributes:
        kind: one of `ATTACKS`.
        attackers: how many agents, the last ones.
    """

    kind: str
    attackers: int

    def sent(self, contribution: Contribution, index: int, agents: int, round_number: int) -> Contribution:
        """What agent `index` of n sends in round t in place of `contribution`."""
        if index < agents - self.attackers:
            return contribution
        honest = to_dense(contribution.gradient)
        gradient = ATTACKS[self.kind](honest, _rng(round_number, index), _rng())
        return replace(contribution, gradient=DenseMatrix(gradient))


def _rng(*of: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((_TAG, *of)))


def _flipped(honest: Float[np.ndarray, "d r"], _own: object, _common: object) -> Float[np.ndarray, "d r"]:
    return -10.0 * honest


def _random(
    honest: Float[np.ndarray, "d r"], own: np.random.Generator, _common: object
) -> Float[np.ndarray, "d r"]:
    return 100.0 * _with_norm_of(own.standard_normal(honest.shape), honest)


def _constant(honest: Float[np.ndarray, "d r"], _own: object, _common: object) -> Float[np.ndarray, "d r"]:
    return np.ones(honest.shape)


def _hidden(
    honest: Float[np.ndarray, "d r"], _own: object, common: np.random.Generator
) -> Float[np.ndarray, "d r"]:
    return _with_norm_of(common.standard_normal(honest.shape), honest)


def _with_norm_of(matrix: Float[np.ndarray, "d r"], other: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "d r"]:
    return np.asarray(matrix * (np.linalg.norm(other) / np.linalg.norm(matrix)))


ATTACKS: Mapping[str, Callable[..., Float[np.ndarray, "d r"]]] = MappingProxyType(
    {
        "flipped": _flipped,  # ten times the own gradient, with the wrong sign
        "random": _random,  # a hundred times the norm of the own gradient, a random direction in each round
        "constant": _constant,  # one in every entry, always
        "hidden": _hidden,  # the norm of the own gradient, one direction common to all attackers
    }
)


@dataclass(frozen=True, eq=False, slots=True)
class AttackedFleet(WrappedFleet):
    """The joint method with dishonest agents: the last ones, which learn as the others do.

    Attributes:
        attack: what they send.
    """

    attack: Attack

    def learning_from(self, trajectories: Sequence[Trajectory]) -> "AttackedFleet":
        """One round."""
        agents, number = len(trajectories), self.joint.round
        after = self.joint.learning_from(
            trajectories, sent=lambda index, own: self.attack.sent(own, index, agents, number)
        )
        return replace(self, joint=after)
