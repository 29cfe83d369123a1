"""Rounds whose sums are made later, many at once: of agents whose answers stay as they are meanwhile.

The sums over transitions are needed where a posterior is refreshed. An agent of a large fleet is refreshed after
some 16 rounds or more (docs/adr/0041), and features from a table are known by the numbers of the states. So its
rounds are kept as they are, and summed by how often each state came, and came after each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cospan.core.history.feature_rows import TableRows
from cospan.core.history.visits import short_table, visits_of
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.posterior import PosteriorState

MOST_LATE = 32
"""Most rounds that are kept to be summed later: of ten steps each they take as much memory as one d × d sum."""
_NUMBERS_AT_ONCE = 2**17
"""Most numbers, 1 MiB, in what the sums of the agents that are summed together are made of, unless these are fewer
than the next."""
_FEWEST_AT_ONCE = 8


@dataclass(frozen=True, eq=False, slots=True)
class LateRound:
    """A round of n agents.

    Attributes:
        rows: the states by their numbers, shape (n, L + 1).
        rewards: less the agents' references, shape (n, L).
    """

    rows: TableRows
    rewards: Float[np.ndarray, "n L"]

    def of_agents(self, places: Sequence[int] | slice) -> "LateRound":
        """That of some of the agents, by their places."""
        return LateRound(TableRows(self.rows.table, self.rows.rows[places]), self.rewards[places])


def late_of_agents(late: Sequence[LateRound], places: int | Sequence[int] | slice) -> tuple[LateRound, ...]:
    """Those of some of n agents, by their places; of one agent with an axis of length 1."""
    chosen = [places] if isinstance(places, int) else places
    return tuple(each.of_agents(chosen) for each in late)


@dataclass(frozen=True, eq=False, slots=True)
class _Totals:
    """Sums over rounds, of n agents: the attributes of `TransitionSums` and `PosteriorState` of the same names."""

    system: Float[np.ndarray, "n d d"]
    rewards: Float[np.ndarray, "n d"]
    traces: Float[np.ndarray, "n d"]
    second_moment: Float[np.ndarray, "n d d"]
    changes: Float[np.ndarray, "n d"]
    noise: Float[np.ndarray, "n d1 d1"] | None


def with_late(
    sums: TransitionSums, posterior: PosteriorState, late: Sequence[LateRound], *, with_noise: bool
) -> tuple[TransitionSums, PosteriorState]:
    """The matrices and vectors of both with these rounds, which numbers and history have already.

    Args:
        sums: of one agent or of n, in the features themselves, with nothing forgotten.
        posterior: of the same.
        late: the rounds, oldest first, one at least; of one agent n is 1.
        with_noise: whether the noise is brought up to date too; while the history is whole it is made of that.
    """
    variance, is_one = posterior.variance, sums.traces.ndim == 1
    totals = _totals(late, None if not with_noise else variance[None] if is_one else variance)

    def added(before: np.ndarray, total: np.ndarray) -> np.ndarray:
        return np.asarray(before + total[0] if is_one else np.add(before, total, out=total))

    return (
        replace(
            sums,
            system=added(sums.system, totals.system),
            rewards=added(sums.rewards, totals.rewards),
            traces=added(sums.traces, totals.traces),
        ),
        replace(
            posterior,
            second_moment=added(posterior.second_moment, totals.second_moment),
            changes=added(posterior.changes, totals.changes),
            noise=posterior.noise if totals.noise is None else added(posterior.noise, totals.noise),
        ),
    )


def _totals(late: Sequence[LateRound], variance: Float[np.ndarray, "n d1"] | None) -> _Totals:
    """Some agents at a time: as many as let what their sums are made of stay in a core's cache."""
    rounds = [each.rows for each in late]
    (agents, length), dim = late[0].rewards.shape, rounds[0].table.shape[1]
    steps = length * len(late)
    table = short_table(rounds, steps)
    vectors, (system, squares) = np.empty((2, agents, dim)), np.empty((2, agents, dim, dim))
    noise = None if variance is None else np.empty((agents, dim + 1, dim + 1))
    numbers = 4 * steps + (steps * dim if table is None else len(table) ** 2)
    size = max(_FEWEST_AT_ONCE, _NUMBERS_AT_ONCE // numbers)
    for start in range(0, agents, size):
        some = slice(start, start + size)
        visits = visits_of(rounds, some, table)
        squares[some] = visits.products
        np.subtract(squares[some], visits.crossed, out=system[some])
        vectors[0, some] = visits.weighed(np.concatenate([each.rewards[some] for each in late], axis=1))
        vectors[1, some] = visits.sums
        if noise is not None and variance is not None:
            noise[some] = visits.noise(variance[some])
    changes = np.zeros((agents, dim))
    for each in rounds:
        changes += each.table[each.rows[:, 0]] - each.table[each.rows[:, -1]]
    return _Totals(system, vectors[0], vectors[1], squares, changes, noise)
