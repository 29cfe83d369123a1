"""CartPole and Acrobot in JAX take the steps of Gymnasium's."""

from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cospan.experiments.control.environments import (
    ACROBOT,
    CARTPOLE,
    FALLEN_ANGLE,
    START_ANGLE,
    TRACK_END,
    Physics,
    Task,
)


def cartpole(length: float, gravity: float) -> Any:
    env = gymnasium.make("CartPole-v1").unwrapped
    env.length, env.gravity = length, gravity
    env.polemass_length = env.masspole * length
    env.theta_threshold_radians = float(FALLEN_ANGLE)
    return env


def acrobot(length: float, gravity: float) -> Any:
    assert gravity == 9.8
    env = gymnasium.make("Acrobot-v1").unwrapped
    env.LINK_LENGTH_1 = env.LINK_LENGTH_2 = length
    env.LINK_COM_POS_1 = env.LINK_COM_POS_2 = length / 2.0
    return env


@pytest.mark.parametrize(
    ("task", "make", "physics"),
    [
        (CARTPOLE, cartpole, (0.5, 9.8, 0.0)),
        (CARTPOLE, cartpole, (1.0, 15.0, 1.0)),
        (ACROBOT, acrobot, (1.0, 9.8, 0.0)),
        (ACROBOT, acrobot, (1.0, 9.8, 1.0)),
    ],
)
def test_a_step_is_gymnasiums(
    task: Task, make: Callable[[float, float], Any], physics: tuple[float, float, float]
) -> None:
    rng, env = np.random.default_rng(0), make(*physics[:2])
    most = [TRACK_END, 2.0, float(FALLEN_ANGLE), 2.0] if task is CARTPOLE else [3.1, 3.1, 6.0, 6.0]
    step = jax.jit(lambda state, action: task.step(state, action, Physics(*physics)))
    ends = 0
    for _ in range(200):
        state, action = rng.uniform(-1.0, 1.0, 4) * most, int(rng.integers(task.actions))
        env.reset()
        env.state = state
        known = task.actions - 1 - action if physics[2] else action
        _, _, terminated, _, _ = env.step(known)
        found = step(jnp.asarray(state, dtype=jnp.float32), action)
        np.testing.assert_allclose(found.state, env.state, atol=2e-4, rtol=2e-4)
        assert bool(found.ended) == terminated
        assert float(found.reward) == (0.0 if not terminated else -1.0 if task is CARTPOLE else 1.0)
        ends += terminated
    assert ends > 3


@pytest.mark.parametrize("task", [CARTPOLE, ACROBOT])
def test_start_states_are_those_of_the_page(task: Task) -> None:
    keys = jax.random.split(jax.random.key(0), 2000)
    states = np.asarray(jax.vmap(lambda key: task.start(key, Physics(1.0, 9.8, 0.0)))(keys))
    most = [0.05, 0.05, float(START_ANGLE), 0.05] if task is CARTPOLE else [0.1] * 4
    assert (np.abs(states) <= most).all()
    np.testing.assert_allclose(np.abs(states).max(axis=0), most, rtol=0.02)
    observed = np.asarray(jax.vmap(task.observe)(states))
    assert observed.shape == (2000, task.inputs)
    assert np.abs(observed).max() <= 1.0
