"""Drives a site's environment as one chain that never ends, and checks what comes out of it."""

import copy
import math
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.workload import FeatureMap, Site
from cospan.core.learner import Trajectory
from cospan.wire.errors import WorkloadBehaviourError

_NORM_SLACK = 1e-9


class Chain:
    """The continuing chain of one site under its policy.

    A true end (`terminated`) is a transition into the next start state. A time limit (`truncated`) is no end: the
    environment is stepped on.
    """

    def __init__(self, site: Site, *, name: str, index: int, seed: int, first_round: int = 0) -> None:
        """Prepares the chain; the environment is reset when it is first needed.

        Args:
            site: the environment, its features and its policy.
            name: of the agent, for error messages.
            index: of the agent.
            seed: of the run; the environment's seed and the policy's generator come from (seed, index) alone,
            first_round: unless the chain begins in a later round: then from that as well, or an agent that is
                started again would learn from the same data twice.
        """
        self._site, self._name = site, name
        origin = (seed, index, first_round) if first_round else (seed, index)
        environment_seed, policy_seed = np.random.SeedSequence(origin).spawn(2)
        self._environment_seed = int(environment_seed.generate_state(1)[0])
        self._rng = np.random.default_rng(policy_seed)
        self._observation: Any = None
        self.steps = 0
        self.reward_sum = 0.0

    def advance(self, steps: int) -> Trajectory:
        """The next L steps: φ(s_0) … φ(s_L) and r_0 … r_{L−1}.

        Raises:
            WorkloadBehaviourError: the environment, the policy or the features raised, or broke their contract.
        """
        env, policy, rng = self._site.env, self._site.policy, self._rng
        try:
            if self._observation is None:
                self._observation = _kept(env.reset(seed=self._environment_seed)[0])
            observations, rewards = [self._observation], []
            for _ in range(steps):
                observation, reward, terminated, _, _ = env.step(policy(observations[-1], rng))
                if terminated:
                    observation, _ = env.reset()
                observations.append(_kept(observation))
                rewards.append(self._counted(float(reward)))
            self._observation = observations[-1]
        except WorkloadBehaviourError:
            raise
        except Exception as failure:
            raise WorkloadBehaviourError(
                f"the environment or policy of {self._name} raised {type(failure).__name__} in step {self.steps}: "
                f"{failure}"
            ) from failure
        return Trajectory(
            features=checked_features(self._site.features, observations, self._name), rewards=np.array(rewards)
        )

    def _counted(self, reward: float) -> float:
        if not math.isfinite(reward):
            raise WorkloadBehaviourError(
                f"the environment of {self._name} gave the reward {reward} in step {self.steps}; it must be finite"
            )
        self.steps += 1
        self.reward_sum += reward
        return reward


def _kept(observation: Any) -> Any:
    """The observation as it is now: an environment may go on to write into the same array."""
    if isinstance(observation, np.ndarray):
        return observation.copy()
    # Observations of Dict and Tuple spaces hold arrays of their own.
    return copy.deepcopy(observation) if isinstance(observation, dict | tuple | list) else observation


def checked_features(features: FeatureMap, observations: list[Any], name: str) -> Float[np.ndarray, "n d"]:
    """φ of several observations, checked.

    Raises:
        WorkloadBehaviourError: the map raised, or a vector has the wrong length, an entry that is not finite, or a
            norm above 1.
    """
    try:
        values = np.asarray(features.batch(observations), dtype=np.float64)
    except Exception as failure:
        raise WorkloadBehaviourError(
            f"the feature map of {name} raised {type(failure).__name__}: {failure}"
        ) from failure
    expected = (len(observations), features.dim)
    if values.shape != expected:
        raise WorkloadBehaviourError(
            f"the feature map of {name} gave an array of shape {values.shape} for {expected[0]} observations; "
            f"its dimension is {features.dim}, so it must be {expected}"
        )
    squares = np.einsum("ij,ij->i", values, values)
    if not np.isfinite(squares).all():
        worst = int(np.flatnonzero(~np.isfinite(squares))[0])
        raise WorkloadBehaviourError(
            f"the feature map of {name} gave an entry that is not finite for the observation "
            f"{observations[worst]!r}"
        )
    if squares.max() > 1.0 + _NORM_SLACK:
        worst = int(squares.argmax())
        raise WorkloadBehaviourError(
            f"the feature map of {name} gave a vector of norm {math.sqrt(squares[worst]):.6g} for the observation "
            f"{observations[worst]!r}; norms must not exceed 1: scale the features"
        )
    return values
