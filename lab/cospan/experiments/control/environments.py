"""Environments as pure functions: CartPole and Acrobot with the physics of one agent, as chains that never end.

The equations and constants are those of Gymnasium's `CartPole-v1` and `Acrobot-v1`; tests compare them.
They are written again so that an agent's round is one compiled loop over steps, actions and learning.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Physics(NamedTuple):
    """What differs between the agents; a pytree, so that one compiled function serves all of them.

    Attributes:
        length: half that of the pole, m, as Gymnasium's `length` (CartPole), or that of both links (Acrobot).
        gravity: m/s².
        mirrored: 1.0 where the actions are in reverse order, else 0.0.
    """

    length: float | Array
    gravity: float | Array
    mirrored: float | Array


class Outcome(NamedTuple):
    """What a step leads to.

    Attributes:
        state: the next one; after an end it is still that of the end.
        reward: of the step.
        ended: whether the pole fell, or the goal was reached: a transition into a new start state follows.
    """

    state: Array
    reward: Array
    ended: Array


@dataclass(frozen=True, slots=True)
class Task:
    """An environment.

    Attributes:
        name: of it, for people.
        inputs: length of an observation.
        actions: how many there are.
        start: (key, physics) → a start state.
        step: (state, action, physics) → outcome.
        observe: state → observation, each entry about −1 to 1.
        episode_steps: longest episode that is judged.
    """

    name: str
    inputs: int
    actions: int
    start: Callable[[Array, Physics], Array]
    step: Callable[[Array, Array, Physics], Outcome]
    observe: Callable[[Array], Array]
    episode_steps: int


# CartPole: state (x, ẋ, θ, θ̇) ------------------------------------------------------------------------------------

FORCE = 10.0
CART_MASS, POLE_MASS = 1.0, 0.1
TIME_STEP = 0.02
TRACK_END = 2.4
START_ANGLE = jnp.pi / 6.0
FALLEN_ANGLE = jnp.pi / 4.0
"""Gymnasium's 12° lie below the start angle; the widest from which the strongest force can raise a pole is 43°."""


def cartpole_start(key: Array, physics: Physics) -> Array:
    """θ uniform in ±π/6, the rest in ±0.05 as in Gymnasium."""
    del physics
    small, angle = jax.random.split(key)
    state = jax.random.uniform(small, (4,), minval=-0.05, maxval=0.05)
    return state.at[2].set(jax.random.uniform(angle, (), minval=-START_ANGLE, maxval=START_ANGLE))


def cartpole_step(state: Array, action: Array, physics: Physics) -> Outcome:
    """One step of 0.02 s (Barto, Sutton, Anderson 1983); reward −1 for a fall, else 0."""
    x, x_dot, angle, angle_dot = state
    half = physics.length
    pushes_right = jnp.where(physics.mirrored > 0.5, 1 - action, action)
    force = jnp.where(pushes_right == 1, FORCE, -FORCE)
    total, moment = CART_MASS + POLE_MASS, POLE_MASS * half
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    push = (force + moment * angle_dot**2 * sin) / total
    turn = (physics.gravity * sin - cos * push) / (half * (4.0 / 3.0 - POLE_MASS * cos**2 / total))
    shift = push - moment * turn * cos / total
    after = jnp.array(
        [
            x + TIME_STEP * x_dot,
            x_dot + TIME_STEP * shift,
            angle + TIME_STEP * angle_dot,
            angle_dot + TIME_STEP * turn,
        ]
    )
    fell = (jnp.abs(after[0]) > TRACK_END) | (jnp.abs(after[2]) > FALLEN_ANGLE)
    return Outcome(after, jnp.where(fell, -1.0, 0.0), fell)


def cartpole_observation(state: Array) -> Array:
    """Position, speed, angle and its speed, scaled."""
    return state / jnp.array([TRACK_END, 3.0, FALLEN_ANGLE, 3.0])


CARTPOLE = Task("CartPole", 4, 2, cartpole_start, cartpole_step, cartpole_observation, 500)

# Acrobot: state (θ₁, θ₂, θ̇₁, θ̇₂) ----------------------------------------------------------------------------------

LINK_MASS, LINK_MOMENT = 1.0, 1.0
ACROBOT_STEP = 0.2
MOST_SPEED = (4.0 * jnp.pi, 9.0 * jnp.pi)


def acrobot_start(key: Array, physics: Physics) -> Array:
    """Hanging nearly at rest: all four in ±0.1."""
    del physics
    return jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1)


def _acrobot_rates(state: Array, torque: Array, physics: Physics) -> Array:
    """The "book" equations of motion (Sutton and Barto), with both links of the same length."""
    angle1, angle2, speed1, speed2 = state
    length, centre, gravity = physics.length, physics.length / 2.0, physics.gravity
    m, inertia, cos2, sin2 = LINK_MASS, LINK_MOMENT, jnp.cos(angle2), jnp.sin(angle2)
    d1 = m * centre**2 + m * (length**2 + centre**2 + 2.0 * length * centre * cos2) + 2.0 * inertia
    d2 = m * (centre**2 + length * centre * cos2) + inertia
    phi2 = m * centre * gravity * jnp.cos(angle1 + angle2 - jnp.pi / 2.0)
    phi1 = (
        -m * length * centre * speed2**2 * sin2
        - 2.0 * m * length * centre * speed2 * speed1 * sin2
        + (m * centre + m * length) * gravity * jnp.cos(angle1 - jnp.pi / 2.0)
        + phi2
    )
    turn2 = torque + d2 / d1 * phi1 - m * length * centre * speed1**2 * sin2 - phi2
    turn2 = turn2 / (m * centre**2 + inertia - d2**2 / d1)
    turn1 = -(d2 * turn2 + phi1) / d1
    return jnp.array([speed1, speed2, turn1, turn2])


def acrobot_step(state: Array, action: Array, physics: Physics) -> Outcome:
    """One step of 0.2 s by Runge-Kutta; reward 1 at the goal, else 0."""
    torque = jnp.where(physics.mirrored > 0.5, 1.0 - action, action - 1.0)
    k1 = _acrobot_rates(state, torque, physics)
    k2 = _acrobot_rates(state + ACROBOT_STEP / 2.0 * k1, torque, physics)
    k3 = _acrobot_rates(state + ACROBOT_STEP / 2.0 * k2, torque, physics)
    k4 = _acrobot_rates(state + ACROBOT_STEP * k3, torque, physics)
    moved = state + ACROBOT_STEP / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
    wrapped = (moved[:2] + jnp.pi) % (2.0 * jnp.pi) - jnp.pi
    most = jnp.array(MOST_SPEED)
    after = jnp.concatenate([wrapped, jnp.clip(moved[2:], -most, most)])
    swung_up = -jnp.cos(after[0]) - jnp.cos(after[0] + after[1]) > physics.length
    return Outcome(after, jnp.where(swung_up, 1.0, 0.0), swung_up)


def acrobot_observation(state: Array) -> Array:
    """Cosines and sines of both angles, and both speeds, scaled."""
    angles = state[:2]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles), state[2:] / jnp.array([4.0, 6.0])])


ACROBOT = Task("Acrobot", 6, 3, acrobot_start, acrobot_step, acrobot_observation, 500)
