"""Finite Markov chains, one as an environment or many stepped at once as `Chains`, with the same states.

A chain draws its uniforms in blocks from its own generator, takes them from the block's end, and looks each up in a
row of cumulative probabilities.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete
from jaxtyping import Float, Int, UInt

BLOCK = 1024
"""Uniforms that a chain draws at once; one call for each would cost more than the step itself."""
PART = 128
"""Of a block, how many uniforms each of n chains holds: whole blocks would be a third of their memory."""
_DIGITS = 32
"""Leading binary digits of a cumulative probability that are kept where the rest can be computed again."""
_WORDS = 2**64 - 1


class FiniteChainEnv(gymnasium.Env[Any, Any]):
    """One finite chain. Observations are states; the next state is drawn from a row of cumulative probabilities."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium declares it so

    def __init__(self, rows: Float[np.ndarray, "q s"], actions: int) -> None:
        """Nothing is drawn yet.

        Args:
            rows: distributions of the next state, each summing to one.
            actions: how many there are.
        """
        self.observation_space = Discrete(rows.shape[1])
        self.action_space = Discrete(actions)
        # The last entry is one up to rounding; without it a uniform below one always finds a state.
        self._cumulative: list[list[float]] = np.cumsum(rows, axis=1)[:, :-1].tolist()
        self._uniforms: list[float] = []
        self._states, self._state = rows.shape[1], -1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Starts the chain over. `options` has no use."""
        super().reset(seed=seed, options=options)
        self._uniforms = self._draw()
        self._state = self._first(self._uniforms.pop())
        return self._state, {}

    def _first(self, uniform: float) -> int:
        """The first state: drawn uniformly."""
        return int(uniform * self._states)

    def _moved(self, row: int) -> int:
        """The next state, drawn from a row.

        Raises:
            ResetNeeded: the environment was never reset.
        """
        if not self._uniforms:
            if self._state < 0:
                raise ResetNeeded("reset the environment before its first step")
            self._uniforms = self._draw()
        self._state = state = bisect_right(self._cumulative[row], self._uniforms.pop())
        return state

    def save_state(self) -> dict[str, Any]:
        """The state, and the uniforms that are drawn and not used."""
        return {"state": self._state, "uniforms": np.array(self._uniforms)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from what `save_state` gave. Raises ValueError where there is no such state."""
        found = int(state["state"])
        if not 0 <= found < self._states:
            raise ValueError(f"state {found} of {self._states}")
        self._state, self._uniforms = found, state["uniforms"].tolist()

    def _draw(self) -> list[float]:
        block: list[float] = self.np_random.random(BLOCK).tolist()
        return block


class FiniteChains:
    """n chains with the same states.

    The next state of chain k in state s is the number of entries of `cumulative[k, rows[s]]` that are not above a
    uniform; the reward of that step is `rewards[k, s]`.

    Where rows can be computed again, their leading 32 binary digits are kept, which is half the memory. A uniform
    that has the same ones, once in some 10⁸ steps, is looked up in the row itself: the states are the same.
    """

    def __init__(
        self,
        cumulative: Float[np.ndarray, "n q s1"],
        rows: Int[np.ndarray, " s"],
        rewards: Float[np.ndarray, "n s"],
        *,
        first_row: int | None,
        row_of: Callable[[int, int], Float[np.ndarray, " s1"]] | None = None,
    ) -> None:
        """Nothing is drawn yet.

        Args:
            cumulative: of each chain, rows of cumulative probabilities, without their last entry, which is one.
            rows: of each state the row that its next state is drawn from.
            rewards: of each chain and state.
            first_row: the row that the first state is drawn from; None for one drawn uniformly.
            row_of: (k, q) → the same row of `cumulative` computed again; None where all of it is to be kept.
        """
        self._row_of = row_of
        entries = np.ascontiguousarray(cumulative).reshape(-1)
        self._entries = entries if row_of is None else _leading(entries)
        self._last = cumulative.shape[2]
        self._halves = tuple(_halves(self._last))
        self._rows, self._rewards, self._first_row = rows, rewards, first_row
        self._first_rows = np.arange(len(cumulative)) * cumulative.shape[1]
        self._numbers = np.arange(len(cumulative))
        self._generators: list[np.random.Generator] = []
        self._uniforms = np.empty((0, len(cumulative)))
        self._start_block_with(0)
        self._states = np.zeros(len(cumulative), dtype=np.intp)

    def _start_block_with(self, left: int) -> None:
        """The generators stand where a block begins of which so many uniforms are left, and none is drawn."""
        self._left, self._drawn, self._part = left, 0, -1

    def reset(self, seeds: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Starts over; the policies are deterministic, so their generators have no use."""
        del generators
        # As Gymnasium's `np_random` makes them, which takes a third longer.
        self._generators = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        self._start_block_with(BLOCK)
        first = self._taken()
        if self._first_row is None:
            self._states = (first * len(self._rows)).astype(np.intp)
        else:
            self._states = self._next(np.full(len(first), self._first_row), first)

    def advance(self, steps: int) -> tuple[Int[np.ndarray, "n L1"], Float[np.ndarray, "n L"]]:
        """The states of the next L steps, the one that is left first, and the rewards."""
        states = np.empty((len(self._states), steps + 1), dtype=np.intp)
        states[:, 0] = self._states
        for step in range(1, steps + 1):
            self._states = self._next(self._rows[self._states], self._taken())
            states[:, step] = self._states
        return states, self._rewards[self._numbers[:, None], states[:, :-1]]

    def save_state(self) -> dict[str, Any]:
        """The states, how many of the block's uniforms are left, and the generators as they were before it."""
        self._move_to(0)
        states = [generator.bit_generator.state for generator in self._generators]
        return {"states": self._states.copy(), "left": self._left, "generators": _words(states)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from what `save_state` gave. Raises ValueError where there is no such state."""
        states, left = np.asarray(state["states"], dtype=np.intp), int(state["left"])
        if states.shape != self._states.shape or not ((states >= 0) & (states < len(self._rows))).all():
            raise ValueError(f"states of {states.shape} chains, or beyond the {len(self._rows)} that there are")
        if not 0 <= left <= BLOCK:
            raise ValueError(f"{left} uniforms of a block of {BLOCK}")
        for generator, words in zip(self._generators, state["generators"], strict=True):
            generator.bit_generator.state = _state_of(words)
        self._start_block_with(left)
        self._states = states

    def _move_to(self, place: int) -> None:
        """Has the generators stand before this uniform of the block."""
        if place != self._drawn:
            for generator in self._generators:
                generator.bit_generator.advance(place - self._drawn)  # type: ignore[attr-defined]  # PCG64 has it
        self._drawn = place

    def _taken(self) -> Float[np.ndarray, " n"]:
        """The next uniform of each chain, from the end of its block; a part of the block is drawn at a time."""
        if not self._left:
            self._left, self._drawn = BLOCK, self._drawn - BLOCK
        self._left -= 1
        part = self._left // PART
        if part != self._part:
            self._move_to(part * PART)
            # Side by side, so that one step's are a row.
            self._uniforms = np.stack([generator.random(PART) for generator in self._generators], axis=1)
            self._drawn, self._part = self._drawn + PART, part
        return np.asarray(self._uniforms[self._left % PART])

    def _next(self, rows: Int[np.ndarray, " n"], uniforms: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """How many entries of its sorted row are not above the uniform of each chain, by bisection."""
        begin = (self._first_rows + rows) * self._last
        place = begin.copy()
        sought = uniforms if self._row_of is None else _leading(uniforms)
        for half in self._halves:
            place += half * (self._entries[half - 1 :][place] <= sought)
        found: Int[np.ndarray, " n"] = place - begin
        if self._row_of is not None:
            for chain in np.flatnonzero(
                (self._entries.take(place - 1, mode="clip") == sought) & (found > 0)
            ).tolist():
                row = self._row_of(chain, int(rows[chain]))
                found[chain] = np.count_nonzero(row <= uniforms[chain])
        return found


def _halves(entries: int) -> Iterator[int]:
    """How far each step of a bisection of that many entries moves on."""
    while entries:
        half = (entries + 1) // 2
        yield half
        entries -= half


def _leading(probabilities: Float[np.ndarray, " m"]) -> UInt[np.ndarray, " m"]:
    """The leading binary digits of numbers from 0 on; of 1 and above those of the largest number below 1."""
    scaled = np.minimum(probabilities * 2.0**_DIGITS, 2.0**_DIGITS - 1.0)
    return np.asarray(scaled.astype(np.uint32))


def _words(states: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """PCG64 generators as whole numbers below 2^64, six for each."""
    return np.array([_words_of(state) for state in states], dtype=np.uint64).reshape(len(states), 6)


def _words_of(state: Mapping[str, Any]) -> tuple[int, ...]:
    inner = state["state"]
    halves = [half for name in ("state", "inc") for half in (inner[name] >> 64, inner[name] & _WORDS)]
    return (*halves, state["has_uint32"], state["uinteger"])


def _state_of(words: np.ndarray) -> dict[str, Any]:
    high, low, inc_high, inc_low, has, value = (int(word) for word in words)
    inner = {"state": high << 64 | low, "inc": inc_high << 64 | inc_low}
    return {"bit_generator": "PCG64", "state": inner, "has_uint32": has, "uinteger": value}
