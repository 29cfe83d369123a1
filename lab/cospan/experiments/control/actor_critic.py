"""An average-reward actor-critic: a trunk of two layers that may be shared, and the heads of one agent.

Advantages are GAE (Schulman et al. 2016, arXiv:1506.02438) of the differential TD errors r − η + V(s') − V(s) over
the steps of a round; the actor follows the clipped surrogate of PPO (Schulman et al. 2017, arXiv:1707.06347), and
all weights take steps of Adam. A fall or a goal is a transition into a new start state: the chain never ends.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from cospan.experiments.control.environments import Physics, Task

HIDDEN = 64
"""Units of both layers, tanh."""
PASSES = 4
"""How often the actor-critic goes over the steps of a round, each time with all of them."""
_ADAM = optax.scale_by_adam(eps=1e-5)
_MOST_NORM = 0.5
"""Longer gradients are cut to this norm, as PPO's are."""


class Trunk(NamedTuple):
    """Features of an observation: tanh(tanh(x W1 + b1) W2 + b2)."""

    first: Array
    first_bias: Array
    second: Array
    second_bias: Array


class Heads(NamedTuple):
    """What is linear in the features: logits of the actions, and the differential value."""

    actor: Array
    actor_bias: Array
    critic: Array
    critic_bias: Array


class Weights(NamedTuple):
    """Everything that an agent learns."""

    trunk: Trunk
    heads: Heads


class Constants(NamedTuple):
    """Constants of the learning rule; a pytree.

    Attributes:
        trunk_step: Adam's step for the trunk.
        head_step: Adam's step for the heads.
        clip: how far a probability ratio counts from 1.
        entropy: weight of the policy's entropy.
        trace: λ of GAE.
        gain_step: share of a round's mean reward in η.
        critic_weight: weight of the critic's halved squared error.
    """

    trunk_step: float = 1e-3
    head_step: float = 1e-3
    clip: float = 0.2
    entropy: float = 0.01
    trace: float = 0.95
    gain_step: float = 0.02
    critic_weight: float = 0.5


class Learner(NamedTuple):
    """An agent between two rounds; a pytree.

    Attributes:
        weights: of its network.
        moments: Adam's.
        gain: η.
        state: of its environment.
        key: of its next random numbers.
    """

    weights: Weights
    moments: Any
    gain: Array
    state: Array
    key: Array


class Rows(NamedTuple):
    """Steps of an environment, each with a leading axis."""

    observations: Array
    actions: Array
    log_probabilities: Array
    rewards: Array
    ended: Array


def initial_weights(key: Array, task: Task) -> Weights:
    """Orthogonal layers of gain √2 and heads of zeros: the first policy draws uniformly."""
    first, second = jax.random.split(key)
    orthogonal = jax.nn.initializers.orthogonal(2.0**0.5)
    trunk = Trunk(
        orthogonal(first, (task.inputs, HIDDEN)),
        jnp.zeros(HIDDEN),
        orthogonal(second, (HIDDEN, HIDDEN)),
        jnp.zeros(HIDDEN),
    )
    heads = Heads(jnp.zeros((HIDDEN, task.actions)), jnp.zeros(task.actions), jnp.zeros(HIDDEN), jnp.zeros(()))
    return Weights(trunk, heads)


def initial_learner(key: Array, task: Task, physics: Physics, weights: Weights) -> Learner:
    """In a start state, with an estimated gain of 0."""
    start, later = jax.random.split(key)
    return Learner(weights, _ADAM.init(weights), jnp.zeros(()), task.start(start, physics), later)


def outputs(weights: Weights, observations: Array) -> tuple[Array, Array]:
    """Logits, shape (..., actions), and values, shape (...), of observations, shape (..., inputs)."""
    trunk, heads = weights
    hidden = jnp.tanh(observations @ trunk.first + trunk.first_bias)
    features = jnp.tanh(hidden @ trunk.second + trunk.second_bias)
    return features @ heads.actor + heads.actor_bias, features @ heads.critic + heads.critic_bias


def _play(
    task: Task, weights: Weights, physics: Physics, state: Array, key: Array, steps: int
) -> tuple[Array, Array, Rows]:
    """The next steps of a chain under the policy: its state and key after them, and the steps."""

    def one(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Rows]:
        state, key = carry
        key, draw, restart = jax.random.split(key, 3)
        observation = task.observe(state)
        logits, _value = outputs(weights, observation)
        action = jax.random.categorical(draw, logits)
        found = task.step(state, action, physics)
        after = jnp.where(found.ended, task.start(restart, physics), found.state)
        row = Rows(observation, action, jax.nn.log_softmax(logits)[action], found.reward, found.ended)
        return (after, key), row

    (state, key), rows = jax.lax.scan(one, (state, key), None, length=steps)
    return state, key, rows


def _loss(weights: Weights, rows: Rows, advantages: Array, targets: Array, constants: Constants) -> Array:
    logits, values = outputs(weights, rows.observations)
    logs = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(logs, rows.actions[:, None], axis=1)[:, 0]
    ratio = jnp.exp(chosen - rows.log_probabilities)
    bounded = jnp.clip(ratio, 1.0 - constants.clip, 1.0 + constants.clip)
    surrogate = jnp.minimum(ratio * advantages, bounded * advantages).mean()
    entropy = -(jnp.exp(logs) * logs).sum(axis=1).mean()
    error = 0.5 * ((values - targets) ** 2).mean()
    return -surrogate - constants.entropy * entropy + constants.critic_weight * error


@partial(jax.jit, static_argnames=("task", "steps"))
def learn_round(task: Task, learner: Learner, physics: Physics, constants: Constants, steps: int) -> Learner:
    """Takes L steps of the environment and learns from them.

    Args:
        task: the environment.
        learner: the agent before.
        physics: of the agent.
        constants: of the learning rule.
        steps: L.
    """
    state, key, rows = _play(task, learner.weights, physics, learner.state, learner.key, steps)
    _, values = outputs(learner.weights, rows.observations)
    _, last = outputs(learner.weights, task.observe(state))
    gain = learner.gain + constants.gain_step * (rows.rewards.mean() - learner.gain)
    errors = rows.rewards - gain + jnp.append(values[1:], last) - values
    _, traces = jax.lax.scan(
        lambda later, error: (error + constants.trace * later,) * 2, jnp.zeros(()), errors, reverse=True
    )
    targets = traces + values
    advantages = (traces - traces.mean()) / (traces.std() + 1e-8)

    def improve(carry: tuple[Weights, Any], _: None) -> tuple[tuple[Weights, Any], None]:
        weights, moments = carry
        slopes = jax.grad(_loss)(weights, rows, advantages, targets, constants)
        cut = jnp.minimum(1.0, _MOST_NORM / (optax.tree.norm(slopes) + 1e-8))
        updates, moments = _ADAM.update(jax.tree.map(lambda slope: cut * slope, slopes), moments)
        trunk = jax.tree.map(lambda w, u: w - constants.trunk_step * u, weights.trunk, updates.trunk)
        heads = jax.tree.map(lambda w, u: w - constants.head_step * u, weights.heads, updates.heads)
        return (Weights(trunk, heads), moments), None

    (weights, moments), _ = jax.lax.scan(improve, (learner.weights, learner.moments), None, length=PASSES)
    return Learner(weights, moments, gain, state, key)


@partial(jax.jit, static_argnames=("task", "episodes"))
def judge(task: Task, weights: Weights, physics: Physics, key: Array, episodes: int) -> tuple[Array, Array]:
    """Plays the policy from several start states, for as long as an episode may be; learns nothing.

    Returns:
        The mean reward per step over all chains, which go on after an end, and the mean steps of their first
        episodes.
    """

    def one(key: Array) -> tuple[Array, Array]:
        start, later = jax.random.split(key)
        state = task.start(start, physics)
        _, _, rows = _play(task, weights, physics, state, later, task.episode_steps)
        first = jnp.where(rows.ended.any(), jnp.argmax(rows.ended) + 1, task.episode_steps)
        return rows.rewards.mean(), first

    gains, lengths = jax.vmap(one)(jax.random.split(key, episodes))
    return gains.mean(), lengths.astype(jnp.float32).mean()
