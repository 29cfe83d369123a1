"""Features of several agents as rows of one table.

The states of a finite chain have few different features, and a posterior keeps those of many rounds: by their
numbers in the table they take a fortieth to a hundredth of the memory, and the same bits are made of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, UInt


@dataclass(frozen=True, eq=False, slots=True)
class TableRows:
    """φ of m states of each of n agents.

    Attributes:
        table: φ of every state, shape (s, d).
        rows: the numbers of the states, shape (n, m), below s.
    """

    table: Float[np.ndarray, "s d"]
    rows: UInt[np.ndarray, "n m"]

    @classmethod
    def of(cls, table: Float[np.ndarray, "s d"], states: np.ndarray) -> "TableRows":
        """Of states by their numbers, shape (n, m), in the smallest type that can hold them."""
        return cls(table, states.astype(np.min_scalar_type(len(table))))

    def like(self, earlier: "Sequence[Rows]") -> "TableRows":
        """The same in the table of earlier rounds where that is equal: one that was read from a file is a copy."""
        last = earlier[-1] if earlier else None
        if not isinstance(last, TableRows) or last.table is self.table:
            return self
        return TableRows(last.table, self.rows) if np.array_equal(last.table, self.table) else self

    def values(self, weights: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
        """zᵀφ of each state, with weights z of each agent."""
        every = weights @ self.table.T
        places = self.rows + len(self.table) * np.arange(len(self.rows))[:, None]
        return np.asarray(every.reshape(-1).take(places))

    @property
    def squares(self) -> Float[np.ndarray, "n m"]:
        """‖φ‖² of each state."""
        return np.asarray(np.einsum("sd,sd->s", self.table, self.table).take(self.rows))


Rows: TypeAlias = Float[np.ndarray, "... m d"] | TableRows
"""Features of the states of a round, as they are or by their numbers in a table."""


def of_agents(rows: Rows, places: int | Sequence[int] | slice) -> Rows:
    """Those of one of n agents, as they are, or of some of them, by their places."""
    if isinstance(rows, TableRows):
        chosen = rows.rows[places]
        return rows.table[chosen] if chosen.ndim == 1 else TableRows(rows.table, chosen)
    return rows[places]


def dense(rows: Rows) -> Float[np.ndarray, "... m d"]:
    """The features themselves."""
    return np.asarray(rows.table[rows.rows]) if isinstance(rows, TableRows) else rows


def joined(rounds: Sequence[Rows], agents: slice, states: slice) -> Float[np.ndarray, "n k d"]:
    """The features of some states of each of several rounds, one round after another, of some of n agents."""
    table = shared_table(rounds)
    if table is None:
        return np.concatenate([dense(of_agents(each, agents))[:, states] for each in rounds], axis=1)
    return np.asarray(table[np.concatenate([each[agents, states] for each in numbers_of(rounds)], axis=1)])


def shared_table(rounds: Sequence[Rows]) -> Float[np.ndarray, "s d"] | None:
    """The table that the features of all rounds are from; None where there is none."""
    first = rounds[0] if rounds else None
    if not isinstance(first, TableRows):
        return None
    shared = all(isinstance(each, TableRows) and each.table is first.table for each in rounds)
    return first.table if shared else None


def numbers_of(rounds: Sequence[Rows]) -> list[UInt[np.ndarray, "n m"]]:
    """The numbers of the states of each round whose features are from a table."""
    return [each.rows for each in rounds if isinstance(each, TableRows)]
