"""One agent learns to hold its pole."""

import jax
import numpy as np

from cospan.experiments.control.actor_critic import Constants, initial_learner, initial_weights, judge, learn_round
from cospan.experiments.control.environments import CARTPOLE, Physics

PHYSICS = Physics(np.float32(1.0), np.float32(9.8), np.float32(0.0))
KEY = jax.random.key(5)
EPISODES = 40


def test_an_agent_alone_learns_to_hold_its_pole() -> None:
    constants = Constants(trunk_step=1e-3, head_step=1e-3)
    learner = initial_learner(KEY, CARTPOLE, PHYSICS, initial_weights(KEY, CARTPOLE))
    before = judge(CARTPOLE, learner.weights, PHYSICS, KEY, episodes=EPISODES)
    gains, lengths = [], []
    for number in range(1, 1001):
        learner = learn_round(CARTPOLE, learner, PHYSICS, constants, steps=50)
        if number > 500 and number % 100 == 0:
            gain, length = judge(CARTPOLE, learner.weights, PHYSICS, KEY, episodes=EPISODES)
            gains.append(float(gain))
            lengths.append(float(length))
    assert np.mean(lengths) > 2.0 * float(before[1])
    assert np.mean(gains) > 0.6 * float(before[0])
    assert -0.05 < float(learner.gain) < 0.0


def test_a_judgement_counts_rewards_of_whole_chains_and_steps_of_first_episodes() -> None:
    """With weights of zeros every push is a coin toss: poles fall soon, and J is about −1/length."""
    weights = jax.tree.map(lambda leaf: 0.0 * leaf, initial_weights(KEY, CARTPOLE))
    gain, steps = judge(CARTPOLE, weights, PHYSICS, KEY, episodes=EPISODES)
    assert 10.0 < float(steps) < 120.0
    np.testing.assert_allclose(-1.0 / float(gain), float(steps), rtol=0.15)
