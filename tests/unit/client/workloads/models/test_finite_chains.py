"""Many chains at once have the states of each alone, whatever part of their draws and probabilities they hold."""

from collections.abc import Callable

import numpy as np
import pytest
from jaxtyping import Float, Int

from cospan.client.workloads.models import finite_chains
from cospan.client.workloads.models.finite_chains import BLOCK, PART, FiniteChains
from cospan.client.workloads.synthetic import ChainEnv, only_action

STATES = 9
SEEDS = (11, 12, 13)


def transitions(states: int = STATES) -> Float[np.ndarray, "n s s"]:
    """Of three chains."""
    return np.random.default_rng(5).dirichlet(np.full(states, 0.3), size=(len(SEEDS), states))


def rows_of(states: int = STATES) -> Float[np.ndarray, "n s s1"]:
    """Their cumulative probabilities."""
    return np.cumsum(transitions(states), axis=2)[:, :, :-1]


def chains(states: int = STATES, row_of: Callable[[int, int], np.ndarray] | None = None) -> FiniteChains:
    """Which are to begin."""
    return FiniteChains(
        rows_of(states), np.arange(states), np.zeros((len(SEEDS), states)), first_row=None, row_of=row_of
    )


def begun(made: FiniteChains) -> FiniteChains:
    """The same at their first state."""
    generator = np.random.default_rng(0)
    made.reset(SEEDS, [generator] * len(SEEDS))
    return made


def alone(steps: int, states: int = STATES) -> Int[np.ndarray, "n s"]:
    """The states of each chain by itself."""
    found = []
    for transition, seed in zip(transitions(states), SEEDS, strict=True):
        env = ChainEnv(transition, np.zeros(states))
        path = [env.reset(seed=seed)[0]]
        path += [env.step(only_action(0, np.random.default_rng(0)))[0] for _ in range(steps)]
        found.append(path)
    return np.array(found)


@pytest.mark.parametrize("states", [2, 3, 8, 9, 50])
def test_states_are_those_of_each_chain_alone(states: int) -> None:
    """Over more than two blocks of draws, in rounds that end within parts of them."""
    made, steps = begun(chains(states)), 2 * BLOCK + 50
    path = np.concatenate([made.advance(25)[0][:, :-1] for _ in range(steps // 25)], axis=1)
    np.testing.assert_array_equal(path, alone(path.shape[1] - 1, states))


@pytest.mark.parametrize("digits", [3, 32])
def test_leading_digits_give_the_same_states(monkeypatch: pytest.MonkeyPatch, digits: int) -> None:
    """With three digits many uniforms have those of an entry, and their rows are computed again."""
    monkeypatch.setattr(finite_chains, "_DIGITS", digits)
    asked: list[tuple[int, int]] = []

    def row_of(chain: int, row: int) -> np.ndarray:
        asked.append((chain, row))
        return np.asarray(rows_of()[chain, row])

    found, _ = begun(chains(row_of=row_of)).advance(500)
    np.testing.assert_array_equal(found, alone(500))
    assert bool(asked) == (digits == 3)


@pytest.mark.parametrize("before", [0, 1, PART - 2, PART, BLOCK - 2, BLOCK - 1, BLOCK, BLOCK + PART])
def test_a_saved_state_continues_where_it_was(before: int) -> None:
    made = begun(chains())
    made.advance(before)
    saved = made.save_state()
    expected, _ = made.advance(300)
    resumed = begun(chains())
    resumed.advance(7)
    resumed.load_state(saved)
    np.testing.assert_array_equal(resumed.advance(300)[0], expected)
    words = begun(chains()).save_state()["generators"]
    assert np.array_equal(saved["generators"], words) == (before < BLOCK)


def test_a_state_of_others_is_refused() -> None:
    made = begun(chains())
    saved = made.save_state()
    with pytest.raises(ValueError, match="beyond the 9"):
        made.load_state({**saved, "states": saved["states"] + STATES})
    with pytest.raises(ValueError, match="of a block"):
        made.load_state({**saved, "left": BLOCK + 1})
