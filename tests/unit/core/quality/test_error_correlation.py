"""The correlation of TD errors from step to step."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from cospan.core.learning.posterior import PosteriorState
from cospan.core.quality.error_correlation import LEAST_ROUNDS, error_correlation

D, STEPS = 3, 20
WEIGHTS = np.array([1.0, -2.0, 0.5])


def state_of(errors: Float[np.ndarray, "rounds steps"], seed: int = 3) -> PosteriorState:
    """An agent whose TD errors with `WEIGHTS` are these: rewards follow from them and random features."""
    rng = np.random.default_rng(seed)
    state = PosteriorState.initial(D)
    for each in errors:
        features = rng.normal(size=(len(each) + 1, D))
        state = state.observed(features, each + (features[:-1] - features[1:]) @ WEIGHTS)
    return replace(state, weights=WEIGHTS)


def test_white_errors_are_uncorrelated_and_persistent_ones_are_found() -> None:
    rng = np.random.default_rng(4)
    white = rng.normal(size=(300, STEPS))
    # The history is thinned, so all rounds are set at once.
    for carry in (0.0, 0.6):
        errors = white.copy()
        for step in range(1, STEPS):
            errors[:, step] = carry * errors[:, step - 1] + np.sqrt(1.0 - carry**2) * white[:, step]
        state = replace(state_of(errors[:1]), **history_of(errors))
        found, spread = error_correlation(state)
        assert np.all(np.abs(found - [carry, carry**2]) < 4.0 * spread)
        assert np.all(spread < 0.05)


def history_of(errors: Float[np.ndarray, "rounds steps"]) -> dict[str, tuple[np.ndarray, ...]]:
    states = [state_of(each[None], seed) for seed, each in enumerate(errors)]
    kept = ("features", "rewards", "is_transition")
    return {name: tuple(getattr(state, name)[0] for state in states) for name in kept}


def test_agents_of_a_group_are_judged_each_by_its_own_errors() -> None:
    rng = np.random.default_rng(5)
    errors = rng.normal(size=(2, 30, STEPS))
    errors[1, :, 1:] += errors[1, :, :-1]
    alone = [replace(state_of(each[:1]), **history_of(each)) for each in errors]
    together = replace(
        PosteriorState.initial(D, (2,)),
        features=tuple(map(np.stack, zip(*(state.features for state in alone), strict=True))),
        rewards=tuple(map(np.stack, zip(*(state.rewards for state in alone), strict=True))),
        is_transition=alone[0].is_transition,
        weights=np.stack([WEIGHTS, WEIGHTS]),
    )
    found, spread = error_correlation(together)
    for place, state in enumerate(alone):
        np.testing.assert_allclose((found[place], spread[place]), error_correlation(state), rtol=1e-12)
    assert found[1, 0] > 3.0 * spread[1, 0] > 0.0


def test_too_few_rounds_or_steps_or_equal_errors_say_nothing() -> None:
    noise = np.random.default_rng(6).normal(size=(LEAST_ROUNDS, 2))
    assert np.isnan(error_correlation(state_of(noise[:-1]))).all()
    found, _ = error_correlation(state_of(noise))
    assert np.isnan(found).tolist() == [False, True], "two steps apart is beyond a round of two"
    flat = replace(state_of(np.zeros((9, 4))), weights=np.zeros(D), rewards=(np.ones(4),) * 9)
    assert np.isnan(error_correlation(flat)).all()
