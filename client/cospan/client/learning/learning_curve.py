"""The learning curve of an agent or a group: one line for each round, thinned when there are very many."""

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float

MOST_ROUNDS = 16_384
"""Most rounds that are kept."""
_MOST_NUMBERS = 2**22
"""Most numbers, 32 MiB, in the curve of a large group, unless that would be too few rounds."""
_FEWEST_ROUNDS = 256

COLUMNS = ("value_error", "lstd_alone_error", "td_alone_error", "gain_estimate", "mean_squared_td_error")
"""The columns of a curve beside the round."""

_V = TypeVar("_V", float, Float[np.ndarray, " n"])
"""One number, or one for each agent of a group."""


def most_rounds(numbers: int) -> int:
    """The most rounds kept of a curve that has this many numbers for each."""
    return min(MOST_ROUNDS, max(_FEWEST_ROUNDS, _MOST_NUMBERS // max(1, numbers)))


@dataclass(slots=True)
class LearningCurve(Generic[_V]):
    """One line a round; `nan` where the truth is unknown.

    A run may have no end, so the number of lines is bounded. Beyond `most` rounds, the curve keeps the newest round
    and those whose numbers are multiples of `every`, which doubles when necessary. So two curves that were thinned
    differently share the rounds of the coarser one.

    Attributes:
        round: its number.
        value_error: relative value error of the averaged weights.
        lstd_alone_error: the same of LSTD alone, in rounds of `lstd_is_due` and the last of the run; nan between.
        td_alone_error: the same of TD alone, (m,) or (n, m), for each of its step sizes.
        gain_estimate: average of η.
        mean_squared_td_error: of the round's transitions.
        every: see above; a power of two.
        most: lines.
    """

    round: list[int] = field(default_factory=list)
    value_error: list[_V] = field(default_factory=list)
    lstd_alone_error: list[_V] = field(default_factory=list)
    td_alone_error: list[Float[np.ndarray, "..."]] = field(default_factory=list)
    gain_estimate: list[_V] = field(default_factory=list)
    mean_squared_td_error: list[_V] = field(default_factory=list)
    every: int = 1
    most: int = MOST_ROUNDS

    def add(
        self,
        round_number: int,
        *,
        value_error: _V,
        lstd_alone_error: _V,
        td_alone_error: Float[np.ndarray, "..."],
        gain_estimate: _V,
        mean_squared_td_error: _V,
    ) -> None:
        """Adds the newest round; the one before stays only where it is one of those that do."""
        if self.round and self.round[-1] % self.every:
            for column in self._columns():
                column.pop()
        self.round.append(round_number)
        self.value_error.append(value_error)
        self.lstd_alone_error.append(lstd_alone_error)
        self.td_alone_error.append(td_alone_error)
        self.gain_estimate.append(gain_estimate)
        self.mean_squared_td_error.append(mean_squared_td_error)
        self._thin()

    def select(self, places: list[int]) -> None:
        """Of a group: keeps the columns of the agents in these places."""
        for column in self._columns()[1:]:
            column[:] = [values[places] for values in column]

    def of_agent(self, place: int) -> "LearningCurve[float]":
        """Of a group: the curve of the agent in this place."""
        columns: dict[str, Any] = {name: [values[place] for values in getattr(self, name)] for name in COLUMNS}
        return LearningCurve(round=self.round, every=self.every, **columns)

    def _thin(self) -> None:
        """Keeps fewer rounds where these are too many."""
        newest = len(self.round) - 1
        while len(self.round) > max(2, self.most):
            self.every *= 2
            kept = [place for place, number in enumerate(self.round) if not number % self.every or place == newest]
            for column in self._columns():
                column[:] = [column[place] for place in kept]
            newest = len(kept) - 1

    def _columns(self) -> list[list[Any]]:
        return [getattr(self, name) for name in ("round", *COLUMNS)]
