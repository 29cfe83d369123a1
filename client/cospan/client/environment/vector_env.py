"""A vector environment of Gymnasium as the chains of several sites: sub-environment k is the k-th site's.

A site is one environment under one policy, whose chain never ends, so a `gymnasium.vector.VectorEnv` stands for
several sites, and not for several chains of one. What its parts do at an end decides what their chains are:

* A true end (`terminated`) is a transition into the next start state. So the vector environment has to reset within
  the step (`AutoresetMode.SAME_STEP`), or to leave it to us (`DISABLED`). With `NEXT_STEP`, Gymnasium's default, a
  part that has ended spends a step on its reset while the others take a step: it is taken as long as none ends.
* A time limit (`truncated`) is no end, but a vector environment never steps on after one. So there must be none.

Otherwise the chains would have transitions that the environment does not make; it is refused with a sentence.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector import VectorEnv
from jaxtyping import Bool, Float

from cospan.client.workload import FeatureMap, Policy, Resumable, Sites
from cospan.core.exact_solutions import ReferenceSolution
from cospan.wire.errors import WorkloadBehaviourError

BatchPolicy: TypeAlias = Callable[[np.ndarray, Sequence[np.random.Generator]], np.ndarray]
"""Maps (n observations, n generators) to n actions. The k-th follows from the k-th of both alone."""

_ARRAYS = (Box, Discrete, MultiBinary, MultiDiscrete)
_SAME_STEP, _DISABLED = "SameStep", "Disabled"


def vector_sites(
    env: VectorEnv[Any, Any, Any],
    features: FeatureMap,
    policy: Policy | Sequence[Policy] | None = None,
    *,
    batch_policy: BatchPolicy | None = None,
    references: Sequence[ReferenceSolution | None] | None = None,
    labels: Sequence[str] | None = None,
) -> Sites:
    """The sites whose environments are those of a vector environment: what `Workload.make_fleet` is to return.

    Args:
        env: sub-environment k is the k-th site's; see above for what it does at an end.
        features: observation → R^d, the same for all.
        policy: of one observation, for all sites or for each; or, in its place,
        batch_policy: of all observations at once.
        references: what is known to be true of each; nothing if omitted.
        labels: of the sites.

    Raises:
        WorkloadBehaviourError: the vector environment cannot be taken, or the numbers of its parts differ.
    """
    sites = env.num_envs
    chains = VectorEnvRollouts(env, policy, batch_policy=batch_policy)
    known = (None,) * sites if references is None else tuple(references)
    return Sites(chains, features, known, ("",) * sites if labels is None else tuple(labels))


class VectorEnvRollouts:
    """The `Chains` of a vector environment.

    Each chain sees what it would see alone as long as sub-environment k draws from a generator of its own, as in
    `SyncVectorEnv` and `AsyncVectorEnv`.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        policy: Policy | Sequence[Policy] | None = None,
        *,
        batch_policy: BatchPolicy | None = None,
    ) -> None:
        """See `vector_sites`."""
        if (policy is None) == (batch_policy is None):
            raise WorkloadBehaviourError("a vector environment needs a policy or a batch_policy; say one of them")
        spaces = (env.single_observation_space, env.single_action_space)
        for space, what in zip(spaces, ("observations", "actions"), strict=True):
            if not isinstance(space, _ARRAYS):
                raise WorkloadBehaviourError(
                    f"the vector environment has {what} of a {type(space).__name__} space, which are no arrays; "
                    "flatten them (as with gymnasium.wrappers.FlattenObservation), or leave out make_fleet"
                )
        self._policies: tuple[Policy, ...] = ()
        if policy is not None:
            self._policies = (policy,) * env.num_envs if callable(policy) else tuple(policy)
            if len(self._policies) != env.num_envs:
                raise WorkloadBehaviourError(
                    f"there are {len(self._policies)} policies for {env.num_envs} sub-environments; give as many"
                )
        self._batch_policy = batch_policy
        self._env = env
        mode = env.metadata.get("autoreset_mode")
        self._mode = str(getattr(mode, "value", mode))
        self._generators: list[np.random.Generator] = []
        self._observations: np.ndarray = np.empty(0)

    def reset(self, seeds: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Starts all chains over; see `Chains`."""
        if len(seeds) != self._env.num_envs:
            raise WorkloadBehaviourError(
                f"the vector environment has {self._env.num_envs} sub-environments, and {len(seeds)} sites were "
                "asked for; make_fleet must make one for each index"
            )
        observations, _ = self._env.reset(seed=list(seeds))  # type: ignore[arg-type]  # those of parts take a list
        self._observations, self._generators = np.array(observations), list(generators)

    def advance(self, steps: int) -> tuple[np.ndarray, Float[np.ndarray, "n L"]]:
        """The next L steps of each; see `Chains`.

        Raises:
            WorkloadBehaviourError: a sub-environment came to a time limit; or to an end that spoils the next step.
        """
        history, rewards = [self._observations], np.empty((self._env.num_envs, steps))
        for step in range(steps):
            observations, reward, terminated, truncated, _ = self._env.step(self._actions(history[-1]))
            ended = np.asarray(terminated, dtype=np.bool_)
            self._check_no_limit(np.asarray(truncated, dtype=np.bool_) & ~ended)
            observations = np.array(observations)  # a copy: some write into the same array
            if ended.any():
                self._begin_again(observations, ended)
            history.append(observations)
            rewards[:, step] = reward
        self._observations = history[-1]
        return np.stack(history, axis=1), rewards

    def _actions(self, observations: np.ndarray) -> np.ndarray:
        if self._batch_policy is not None:
            return self._batch_policy(observations, self._generators)
        chosen = zip(self._policies, observations, self._generators, strict=True)
        return np.stack([np.asarray(policy(observation, rng)) for policy, observation, rng in chosen])

    def _check_no_limit(self, cut: Bool[np.ndarray, " n"]) -> None:
        if cut.any():
            raise WorkloadBehaviourError(
                f"sub-environment {int(cut.argmax())} was truncated; a time limit is no end of its chain, but a "
                "vector environment cannot step on after one: make its environments without (max_episode_steps=-1)"
            )

    def _begin_again(self, observations: np.ndarray, ended: Bool[np.ndarray, " n"]) -> None:
        """Puts the next start states in the places of those that have ended."""
        if self._mode == _SAME_STEP:
            return
        if self._mode != _DISABLED:
            raise WorkloadBehaviourError(
                f"sub-environment {int(ended.argmax())} has ended, and its vector environment would reset it on "
                "the next step, which is no step of its chain: make it with autoreset_mode=AutoresetMode.SAME_STEP"
            )
        begun, _ = self._env.reset(options={"reset_mask": ended.copy()})
        observations[ended] = np.asarray(begun)[ended]

    def close(self) -> None:
        """Closes the vector environment."""
        self._env.close()

    # Where the chains stand ---------------------------------------------------------------------------------------

    def save_state(self) -> Mapping[str, Any] | None:
        """All that the next steps depend on; None where that cannot be said, as of other processes."""
        inner = self._inner()
        if inner is None:
            return None
        return {
            "observations": self._observations,
            "environments": [env.unwrapped.save_state() for env in inner],
            "environment_generators": [env.unwrapped.np_random.bit_generator.state for env in inner],
            "policy_generators": [generator.bit_generator.state for generator in self._generators],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from the state that `save_state` gave; called after a `reset`.

        Raises:
            ValueError: it is of other sub-environments.
        """
        inner = self._inner()
        if inner is None or len(state["environments"]) != len(inner):
            raise ValueError("it is of other environments")
        for number, env in enumerate(inner):
            env.unwrapped.load_state(state["environments"][number])
            env.unwrapped.np_random.bit_generator.state = state["environment_generators"][number]
            self._generators[number].bit_generator.state = state["policy_generators"][number]
        self._observations = np.array(state["observations"])

    def _inner(self) -> list[Any] | None:
        """The sub-environments, where they are in this process and can all save their states."""
        found: Sequence[gymnasium.Env[Any, Any]] | None = getattr(self._env.unwrapped, "envs", None)
        if found is None or not all(isinstance(env.unwrapped, Resumable) for env in found):
            return None
        return list(found)
