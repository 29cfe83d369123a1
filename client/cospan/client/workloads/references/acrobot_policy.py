"""Trains the policy of the acrobots that is shipped as package data.

    python -m cospan.client.workloads.references.acrobot_policy [FILE]

Cross-entropy search over the weights of `SwingUp`'s network: each generation draws networks around a mean, plays
episodes of every one on all six pairs of lengths side by side, and moves mean and spread to those of the networks
whose episodes cost least: a step costs one, and one more where the lower link spins fast. One policy serves all
lengths. Everything is drawn from `SEED`; it takes a few minutes.
"""

import numpy as np
from jaxtyping import Float

from cospan.client.workloads.models.acrobot import (
    LINK_1,
    LINK_2,
    POLICY_FILE,
    VELOCITY_SCALES,
    Motion,
    SwingUp,
    observed,
    reached,
    starts,
)
from cospan.client.workloads.references.solutions import target_path

SEED = 20_260_302
HIDDEN = 16
POPULATION = 200
ELITE = 40
GENERATIONS = 100
EPISODES = 3
"""Of each network on each site, in a generation."""
LONGEST = 1000
"""Steps after which an episode of the training is given up."""
FAST = 6.0
"""rad/s of the lower link above which a step counts twice: a link that spins by more than a radian within a step
would get to the goal sooner, but make a value that no smooth features can follow."""
LEAST_SPREAD = 0.05
"""Below which the spread of a generation does not fall at first; it falls to nothing with the generations."""
SMOOTHING = 0.7
"""Weight of the new mean and spread against the old ones."""

Networks = Float[np.ndarray, "p w"]


def policy_of(weights: Networks) -> SwingUp:
    """The policies of p networks, their weights one row each; they take observations of shape (p, 1, 6)."""
    inner = weights[:, : 6 * HIDDEN].reshape(-1, 6, HIDDEN) / np.array([1.0, 1, 1, 1, *VELOCITY_SCALES])[:, None]
    return SwingUp(inner, weights[:, None, 6 * HIDDEN : 7 * HIDDEN], weights[:, 7 * HIDDEN :, None])


def episode_lengths(
    weights: Networks, episodes: int, longest: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "p sites e"], Float[np.ndarray, "p sites e"]]:
    """Steps to the goal of episodes of p networks on each site; `longest` where it was not reached by then.

    And in how many of those steps the lower link was faster than `FAST`.
    """
    shape = (len(weights), len(LINK_1), episodes)
    lengths = np.full(shape, float(longest)).reshape(-1)
    fast = np.zeros(lengths.shape)
    links = [np.broadcast_to(np.array(link)[:, None], shape).reshape(-1) for link in (LINK_1, LINK_2)]
    owner = np.repeat(np.arange(shape[0]), shape[1] * shape[2])
    alive = np.arange(lengths.size)
    states = np.tile(starts(shape[1] * shape[2], rng), shape[0])  # the same starts for every network
    for step in range(1, longest + 1):
        policy = policy_of(weights[owner[alive]])
        actions = policy.actions(observed(states)[:, None, :], rng)
        states = Motion(*(link[alive] for link in links)).after(states, actions)
        fast[alive] += np.abs(states[3]) > FAST
        over = reached(states)
        lengths[alive[over]] = step
        alive, states = alive[~over], states[:, ~over]
        if not alive.size:
            break
    return lengths.reshape(shape), fast.reshape(shape)


def train(seed: int, generations: int = GENERATIONS, population: int = POPULATION) -> Float[np.ndarray, " w"]:
    """The mean of the last generation."""
    rng = np.random.default_rng(seed)
    mean, spread = np.zeros(8 * HIDDEN), np.ones(8 * HIDDEN)
    for generation in range(generations):
        networks = mean + spread * rng.standard_normal((population, len(mean)))
        costs = np.add(*episode_lengths(networks, EPISODES, LONGEST, rng)).mean(axis=(1, 2))
        best = networks[np.argsort(costs, kind="stable")[: max(2, population * ELITE // POPULATION)]]
        least = LEAST_SPREAD * (1.0 - generation / generations)
        mean = (1.0 - SMOOTHING) * mean + SMOOTHING * best.mean(axis=0)
        spread = (1.0 - SMOOTHING) * spread + SMOOTHING * np.maximum(best.std(axis=0), least)
        if generation % 10 == 9:
            print(f"generation {generation + 1}: the median network costs {np.median(costs):.0f}", flush=True)
    return mean


def main() -> None:
    """Trains the policy and writes the file; then says how long its episodes are."""
    path = target_path(POLICY_FILE)
    mean = train(SEED)[None]
    policy = policy_of(mean)
    arrays = {"inner": policy.inner[0], "shift": policy.shift[0, 0], "outer": policy.outer[0, :, 0]}
    with path.open("wb") as stream:
        np.savez_compressed(stream, seed=SEED, **arrays)
    lengths, fast = (each[0] for each in episode_lengths(mean, 2000, 20_000, np.random.default_rng(SEED + 1)))
    for link_1, link_2, each, spun in zip(LINK_1, LINK_2, lengths, fast, strict=True):
        print(
            f"links {link_1} m and {link_2} m: {each.mean():.1f} steps to the goal, the longest {each.max():.0f}; "
            f"{spun.sum() / each.sum():.0%} of them fast"
        )


if __name__ == "__main__":
    main()
