"""The kept transitions of several agents at once: sums over them, from the features or from a table of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int, UInt

from cospan.core.history.feature_rows import Rows, joined, numbers_of, shared_table
from cospan.core.uncertainty.variance_model import VARIANCE_FLOOR, bordered, gram, noise_of_many

AGENTS_AT_ONCE = 64
"""Of agents whose states are counted, how many at a time, so that the counts stay in a core's cache."""
_Values: TypeAlias = tuple[Float[np.ndarray, "c m"], Float[np.ndarray, "c k"]]


@dataclass(frozen=True, eq=False, slots=True)
class DenseVisits:
    """The features of c agents in several transitions.

    Attributes:
        visited: φ(s) of each of t transitions, shape (c, t, d).
        last: φ of the last state of each of k rounds, shape (c, k, d).
        rounds: of which these are.
        agents: these.
    """

    visited: Float[np.ndarray, "c t d"]
    last: Float[np.ndarray, "c k d"]
    rounds: Sequence[Rows]
    agents: slice

    @classmethod
    def of(cls, rounds: Sequence[Rows], agents: slice) -> "DenseVisits":
        """Of some of the agents of the kept rounds."""
        visited, last = (joined(rounds, agents, slice(*ends)) for ends in ((None, -1), (-1, None)))
        return cls(visited, last, rounds, agents)

    @property
    def sums(self) -> Float[np.ndarray, "c d"]:
        """Σ φ."""
        return np.asarray(self.visited.sum(axis=1))

    @property
    def products(self) -> Float[np.ndarray, "c d d"]:
        """Σ φ φᵀ."""
        return gram(self.visited, self.visited)

    @property
    def crossed(self) -> Float[np.ndarray, "c d d"]:
        """Σ φ φ'ᵀ, φ' being that of the state that follows."""
        return gram(self.visited, joined(self.rounds, self.agents, slice(1, None)))

    def values(self, weights: Float[np.ndarray, "c d"]) -> _Values:
        """zᵀφ of each transition's state, and of the last state of each round."""
        vectors = weights[..., None]
        return (self.visited @ vectors)[..., 0], (self.last @ vectors)[..., 0]

    def weighed(self, numbers: Float[np.ndarray, "c m"]) -> Float[np.ndarray, "c d"]:
        """Σ x φ, with a number x of each transition."""
        return np.asarray((numbers[:, None] @ self.visited)[:, 0])

    def noise(self, variance: Float[np.ndarray, "c d1"]) -> Float[np.ndarray, "c d1 d1"]:
        """Σ u(φ) [1 φ][1 φ]ᵀ; see `noise_of_many`."""
        return noise_of_many(self.visited, variance)


@dataclass(frozen=True, eq=False)
class TableVisits:
    """The same of agents whose features are rows of a short table: the sums are over its s rows.

    Attributes:
        table: φ of each state, shape (s, d).
        states: of each transition, shape (c, m).
        last: the last state of each of k rounds, shape (c, k).
        rounds: of which these are, by the numbers of all c agents' states, each of shape (c, L + 1).
    """

    table: Float[np.ndarray, "s d"]
    states: Int[np.ndarray, "c m"]
    last: Int[np.ndarray, "c k"]
    rounds: Sequence[UInt[np.ndarray, "c L1"]]

    @classmethod
    def of(cls, table: Float[np.ndarray, "s d"], rounds: Sequence[Rows], agents: slice) -> "TableVisits":
        """Of some of the agents of the kept rounds, whose features are all from the table."""
        numbers = [each[agents] for each in numbers_of(rounds)]
        states = np.concatenate([each[:, :-1] for each in numbers], axis=1).astype(np.intp)
        return cls(table, states, np.stack([each[:, -1] for each in numbers], axis=1).astype(np.intp), numbers)

    @cached_property
    def _products(self) -> Float[np.ndarray, "s dd"]:
        """φ φᵀ of each row."""
        return np.asarray((self.table[:, :, None] * self.table[:, None, :]).reshape(len(self.table), -1))

    @cached_property
    def _places(self) -> Int[np.ndarray, " cm"]:
        """Of each transition, its place in an array of (agent, state)."""
        agents, size = len(self.states), len(self.table)
        return np.asarray((self.states + size * np.arange(agents)[:, None]).reshape(-1))

    @cached_property
    def _counts(self) -> Float[np.ndarray, "c s"]:
        """How often each agent was in each state."""
        agents, size = len(self.states), len(self.table)
        return np.bincount(self._places, minlength=agents * size).reshape(agents, size).astype(np.float64)

    def _squares(self, counts: Float[np.ndarray, "c s"]) -> Float[np.ndarray, "c d d"]:
        dim = self.table.shape[1]
        return np.asarray((counts @ self._products).reshape(-1, dim, dim))

    @property
    def sums(self) -> Float[np.ndarray, "c d"]:
        """Σ φ."""
        return np.asarray(self._counts @ self.table)

    @property
    def products(self) -> Float[np.ndarray, "c d d"]:
        """Σ φ φᵀ."""
        return self._squares(self._counts)

    @property
    def crossed(self) -> Float[np.ndarray, "c d d"]:
        """Σ φ φ'ᵀ: of how often each state followed each other one, where that is less than the features."""
        following = np.concatenate([each[:, 1:] for each in self.rounds], axis=1).astype(np.intp)
        (agents, steps), (size, dim) = self.states.shape, self.table.shape
        if size * (size + dim) > steps * dim:
            return gram(self.table[self.states], self.table[following])
        pairs = self._places.reshape(self.states.shape) * size + following
        counts = np.bincount(pairs.reshape(-1), minlength=agents * size * size).reshape(-1, size).astype(np.float64)
        return np.asarray(self.table.T @ (counts @ self.table).reshape(agents, size, dim))

    def values(self, weights: Float[np.ndarray, "c d"]) -> _Values:
        """zᵀφ of each transition's state, and of the last state of each round."""
        agents, size = len(self.states), len(self.table)
        every = weights @ self.table.T
        last = every.reshape(-1).take(self.last + size * np.arange(agents)[:, None])
        return every.reshape(-1).take(self._places).reshape(self.states.shape), last

    def weighed(self, numbers: Float[np.ndarray, "c m"]) -> Float[np.ndarray, "c d"]:
        """Σ x φ, with a number x of each transition."""
        sums = np.bincount(self._places, weights=numbers.reshape(-1), minlength=self._counts.size)
        return np.asarray(sums.reshape(self._counts.shape) @ self.table)

    def noise(self, variance: Float[np.ndarray, "c d1"]) -> Float[np.ndarray, "c d1 d1"]:
        """Σ u(φ) [1 φ][1 φ]ᵀ; see `noise_of_many`."""
        modelled = np.maximum(variance[:, 1:] @ self.table.T + variance[:, :1], VARIANCE_FLOOR) * self._counts
        return bordered(modelled.sum(axis=1), modelled @ self.table, self._squares(modelled))


Visits: TypeAlias = DenseVisits | TableVisits
"""The kept transitions of several agents."""


def short_table(rounds: Sequence[Rows], transitions: int) -> Float[np.ndarray, "s d"] | None:
    """The table of the features of all rounds, where it has no more rows than there are transitions."""
    table = shared_table(rounds)
    return None if table is None or len(table) > transitions else table


def visits_of(rounds: Sequence[Rows], agents: slice, table: Float[np.ndarray, "s d"] | None) -> Visits:
    """Of some of the agents of the kept rounds; by a table where there is a short one."""
    return DenseVisits.of(rounds, agents) if table is None else TableVisits.of(table, rounds, agents)


def noise_of_rounds(rounds: Sequence[Rows], variance: Float[np.ndarray, "n d1"]) -> Float[np.ndarray, "n d1 d1"]:
    """Σ u(φ) [1 φ][1 φ]ᵀ over the transitions of several rounds of n agents; see `noise_of_many`."""
    table = shared_table(rounds)
    if table is None:
        return noise_of_many(joined(rounds, slice(None), slice(None, -1)), variance)
    parts = [slice(start, start + AGENTS_AT_ONCE) for start in range(0, len(variance), AGENTS_AT_ONCE)]
    return np.concatenate([visits_of(rounds, part, table).noise(variance[part]) for part in parts])
