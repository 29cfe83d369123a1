"""Drives a site's environment as one chain that never ends, and checks what comes out of it."""

import copy
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.environment.actions import problem_of_action
from cospan.client.environment.chain_seeds import first_words
from cospan.client.environment.observation_parts import exogenous_of, part_names, parts_of
from cospan.client.environment.ownership import close_site, user_code
from cospan.client.environment.plain_values import SavedState, packed, unpacked
from cospan.client.step_source import SourceWarning, StepSource
from cospan.client.workload import AnySite, FeatureMap, Resumable, Site
from cospan.core.learning.learner_state import Trajectory
from cospan.wire.errors import WorkloadBehaviourError

log = logging.getLogger(__name__)

CANNOT_SAVE = "the environment state of %s cannot be saved (%s: %s); after a restart the chain starts over"
_NORM_SLACK = 1e-9
_WATCHED_STEPS = 200
"""Steps in which every action is compared with the action space; later on one of each round is."""


def source_of(site: AnySite, *, name: str, index: int, seed: int, first_round: int = 0) -> StepSource:
    """The steps of a site, which have yet to begin: those of its environment, or of its own source.

    Args: see `Chain`.

    Raises:
        WorkloadBehaviourError: the site's own code raised.
    """
    if isinstance(site, Site):
        return Chain(site, name=name, index=index, seed=seed, first_round=first_round)
    with user_code(f"the steps of {name} cannot be opened"):
        return site.open_source(name)


class Chain:
    """The continuing chain of one site under its policy: the `StepSource` of an environment.

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
        self._origin = (seed, index, first_round)
        inner = getattr(site.env, "unwrapped", site.env)
        self._resumable = inner if isinstance(inner, Resumable) else None
        self.action_warning = ""
        """What was wrong with the first action outside the action space; empty where there was none."""
        self._warned = False
        self._start_over()

    def _start_over(self, steps: int = 0, reward_sum: float = 0.0) -> None:
        """The chain has yet to begin. Its data follow from the steps taken before as well, so none come twice."""
        self._environment_seed, self._rng = origin_of_chain(*self._origin, steps)
        self._observation: Any = None
        self._between_rounds = True
        self.steps, self.reward_sum = steps, reward_sum

    def advance(self, steps: int) -> Trajectory:
        """The next L steps: φ(s_0) … φ(s_L) and r_0 … r_{L−1}.

        Raises:
            WorkloadBehaviourError: the environment, the policy or the features raised, or broke their contract.
        """
        env, policy, rng = self._site.env, self._site.policy, self._rng
        self._between_rounds = False
        rewards: list[float] = []
        action: Any = None
        watched = self._watched_steps(steps)
        try:
            if self._observation is None:
                self._observation = _kept(env.reset(seed=self._environment_seed)[0])
            observations = [self._observation]
            for step in range(self.steps, self.steps + steps):
                action = policy(observations[-1], rng)
                if step in watched:
                    self._watch(action, step)
                observation, reward, terminated, _, _ = env.step(action)
                if terminated:
                    observation, _ = env.reset()
                observations.append(_kept(observation))
                rewards.append(self._checked(float(reward), step))
        except (WorkloadBehaviourError, KeyboardInterrupt):
            raise
        except BaseException as failure:  # an environment may also call sys.exit
            raise WorkloadBehaviourError(
                f"the environment or policy of {self._name} raised {type(failure).__name__} in step "
                f"{self.steps + len(rewards)}: {failure}{self._because(action)}"
            ) from failure
        trajectory = Trajectory(
            features=checked_features(self._site.features, observations, self._name),
            rewards=np.array(rewards),
            parts=parts_of(observations),
            exogenous=None if self._site.exogenous is None else exogenous_of(self._site.exogenous, observations),
        )
        self._observation = observations[-1]
        self.steps += steps
        for reward in rewards:
            self.reward_sum += reward
        self._between_rounds = True
        return trajectory

    def _watched_steps(self, steps: int) -> range:
        """The steps of a round in which the policy's action is compared with the space: all at first, then one."""
        first = self.steps if self.steps < _WATCHED_STEPS else self.steps + steps - 1
        return range(0) if self.action_warning else range(first, self.steps + steps)

    def _watch(self, action: Any, step: int) -> None:
        problem = problem_of_action(self._site.env.action_space, action)
        if problem and not self.action_warning:
            self.action_warning = (
                f"the policy of {self._name} took an action in step {step} that is {problem}; the environment "
                "takes it as it likes: correct the policy or the space"
            )

    def _because(self, action: Any) -> str:
        """What was wrong with the last action, as the end of a sentence on a failure."""
        problem = "" if action is None else problem_of_action(self._site.env.action_space, action)
        return f" (the action was {problem})" if problem else ""

    @property
    def at_end(self) -> bool:
        """False: it never ends."""
        return False

    def take_warnings(self) -> list[SourceWarning]:
        """The first action outside the action space, once."""
        if self._warned or not self.action_warning:
            return []
        self._warned = True
        return [SourceWarning("action", self.action_warning)]

    def interrupt(self) -> None:
        """Nothing: a step of an environment cannot be interrupted."""

    @property
    def part_names(self) -> tuple[str, ...]:
        """What the columns of `Trajectory.parts` are called; empty before the first step."""
        return () if self._observation is None else part_names(self._observation)

    def close(self) -> None:
        """Closes the environment; nothing is stepped any more."""
        close_site(self._site)

    def _checked(self, reward: float, step: int) -> float:
        if not math.isfinite(reward):
            raise WorkloadBehaviourError(
                f"the environment of {self._name} gave the reward {reward} in step {step}; it must be finite"
            )
        return reward

    def saved(self) -> SavedState | None:
        """Where the chain stands, as `plain_values.packed` gives it: the next steps follow from it, bit for bit.

        None where the environment cannot save its state, and where there is none: before the first round, within a
        round, and after one that failed.
        """
        if self._resumable is None or not self._between_rounds or self._observation is None:
            return None
        try:
            return packed(
                {
                    "observation": self._observation,
                    "environment": self._resumable.save_state(),
                    "environment_generator": self._site.env.unwrapped.np_random.bit_generator.state,
                    "policy_generator": self._rng.bit_generator.state,
                }
            )
        except KeyboardInterrupt:
            raise
        except BaseException as failure:  # of the user's code; what was learnt is saved all the same
            self._resumable = None
            log.error(CANNOT_SAVE, self._name, type(failure).__name__, failure)
            return None

    def go_on(self, steps: int, reward_sum: float, saved: SavedState | None) -> str:
        """Continues after `steps` steps: from the state that `saved` gave, or else with data not used before.

        Returns:
            The reason why it starts over; empty where it continues exactly.
        """
        self._start_over(steps, reward_sum)
        if saved is None:
            return "the state of its environment was not saved"
        if self._resumable is None:
            return "its environment cannot load a state"
        try:
            state = unpacked(*saved)
            # A wrapper may insist on a reset, and what is not saved has to be as after one.
            self._site.env.reset(seed=self._environment_seed)
            self._resumable.load_state(state["environment"])
            self._site.env.unwrapped.np_random.bit_generator.state = state["environment_generator"]
            self._rng.bit_generator.state = state["policy_generator"]
            self._observation = state["observation"]
        except KeyboardInterrupt:
            raise
        except BaseException as failure:  # of the user's code, or of one of another version
            self._start_over(steps, reward_sum)
            return f"the state of its environment cannot be loaded ({type(failure).__name__}: {failure})"
        return ""


def origin_of_chain(seed: int, index: int, first_round: int, steps: int) -> tuple[int, np.random.Generator]:
    """The environment's seed and the policy's generator of a chain that begins; see `Chain`."""
    environment_seed = np.random.SeedSequence(_origin(seed, index, first_round, steps), spawn_key=(0,))
    return int(environment_seed.generate_state(1)[0]), policy_generator_of(seed, index, first_round, steps)


def environment_seeds_of(seed: int, indices: Sequence[int], first_round: int, steps: int) -> list[int]:
    """The first of `origin_of_chain` of several sites."""
    if max(indices) >= 2**32:  # more than one word
        return [origin_of_chain(seed, index, first_round, steps)[0] for index in indices]
    after = _origin(seed, 0, first_round, steps)[2:]
    found: list[int] = first_words((seed, np.array(indices, dtype=np.uint32), *after), 0).tolist()
    return found


def policy_generator_of(seed: int, index: int, first_round: int, steps: int) -> np.random.Generator:
    """The second of `origin_of_chain`."""
    return np.random.default_rng(np.random.SeedSequence(_origin(seed, index, first_round, steps), spawn_key=(1,)))


def _origin(*numbers: int) -> tuple[int, ...]:
    """Seed, site, first round and steps, less zeros at the end."""
    origin = list(numbers)
    while origin[-1] == 0 and len(origin) > 2:
        origin.pop()
    return tuple(origin)


def _kept(observation: Any) -> Any:
    """The observation as it is now: an environment may go on to write into the same array."""
    if isinstance(observation, np.ndarray):
        return observation.copy()
    # Observations of Dict and Tuple spaces hold arrays of their own.
    return copy.deepcopy(observation) if isinstance(observation, dict | tuple | list) else observation


def checked_features(
    features: FeatureMap, observations: Sequence[Any] | np.ndarray, name: str
) -> Float[np.ndarray, "n d"]:
    """φ of several observations, checked.

    Raises:
        WorkloadBehaviourError: the map raised, or a vector has the wrong length, an entry that is not finite, or a
            norm above 1.
    """
    with user_code(f"the feature map of {name} failed"):
        values = np.asarray(features.batch(observations), dtype=np.float64)
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
