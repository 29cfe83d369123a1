"""A site under a policy that may be replaced, as an environment whose observations are what values are learnt of.

The value of what a step leaves behind, x, is the expected sum of the rewards after it. So a round of the learner
has the features of x_0 … x_L and the rewards r_1 … r_L that follow them; with pairs (s, a) it has r_0 … r_{L−1}, as
with states. Nothing else in learning differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete

from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.workload import Resumable, Site
from cospan.wire.errors import WorkloadBehaviourError


@dataclass(slots=True)
class StepLog:
    """What a site observed and did, step by step; the observation before each action.

    Attributes:
        observations: s_t.
        actions: a_t.
        rewards: r_t.
    """

    observations: list[np.ndarray] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    def tail(self, steps: int) -> "StepLog":
        """The newest steps."""
        if steps <= 0:
            return StepLog()
        return StepLog(self.observations[-steps:], self.actions[-steps:], self.rewards[-steps:])

    def add(self, other: "StepLog") -> None:
        """These steps and then those, in place."""
        self.observations.extend(other.observations)
        self.actions.extend(other.actions)
        self.rewards.extend(other.rewards)

    def followed_by(self, other: "StepLog") -> "StepLog":
        """These steps and then those."""
        return StepLog(
            self.observations + other.observations, self.actions + other.actions, self.rewards + other.rewards
        )


class ActingEnv(gymnasium.Env[Any, Any]):
    """The environment of a site together with its policy. The only action, 0, lets the policy take its next step.

    The chain continues from one learner to the next: a second `reset` changes nothing, and `close` leaves the
    environment of the site open, which belongs to the caller.

    Attributes:
        policy: of the next step; replace it at any time between steps.
        log: of all steps; take it with `take_log`.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium declares it so

    def __init__(self, site: Site, policy: GreedyPolicy, explore: float) -> None:
        """`explore` is the share of the steps in which any of the actions is taken, drawn uniformly."""
        self.observation_space = site.env.observation_space
        self.action_space = Discrete(1)
        self.policy, self.log = policy, StepLog()
        self._env, self._explore = site.env, explore
        self._seen: Any = None
        self._after: Any = None
        self._pending = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """The first afterstate or pair; where the chain has begun, the one at which it stands."""
        if self._seen is None:
            # Two streams of one seed: a policy that drew what its environment draws would know the future.
            inner, own = np.random.SeedSequence(0 if seed is None else seed).generate_state(2, np.uint64)
            super().reset(seed=int(own >> 1), options=options)
            self._seen = np.array(self._env.reset(seed=int(inner >> 33))[0])
            self._step()
        return self._after, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step of the site under its policy."""
        del action
        before = self._pending
        reward = self._step()
        earned = reward if self.policy.decisions.afterstates is not None else before
        return self._after, earned, False, False, {}

    def act(self, steps: int) -> None:
        """Steps that no learner sees."""
        for _ in range(steps):
            self._step()

    def take_log(self) -> StepLog:
        """The steps since the last call."""
        taken, self.log = self.log, StepLog()
        return taken

    def close(self) -> None:
        """Leaves the site's environment open."""

    def _step(self) -> float:
        """The policy's action in the observation that stands, and its step; the reward of it."""
        seen, policy = self._seen, self.policy
        action = policy.explored(seen, self._explore, self.np_random)
        if policy.decisions.afterstates is not None:
            self._after = policy.pairs(seen[None], np.asarray(action)[None])[0]
        else:
            self._after = (seen, np.asarray(action))
        observation, reward, terminated, _, _ = self._env.step(action)
        if terminated:
            observation, _ = self._env.reset()
        self.log.observations.append(seen)
        self.log.actions.append(action)
        self.log.rewards.append(float(reward))
        self._seen, self._pending = np.array(observation), float(reward)
        return float(reward)


class ResumableActingEnv(ActingEnv):
    """The same of an environment that can save its state (`Resumable`)."""

    def save_state(self) -> Mapping[str, Any]:
        """Where the chain stands. The policy and the log are kept by who keeps the policies."""
        inner = self._env.unwrapped
        assert isinstance(inner, Resumable)
        return {
            "seen": self._seen,
            "after": self._after,
            "pending": self._pending,
            "environment": inner.save_state(),
            "environment_generator": inner.np_random.bit_generator.state,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues there; what the reset before it has logged is forgotten."""
        inner = self._env.unwrapped
        assert isinstance(inner, Resumable)
        inner.load_state(state["environment"])
        inner.np_random.bit_generator.state = state["environment_generator"]
        self._seen, self._after, self._pending = state["seen"], state["after"], float(state["pending"])
        self.log = StepLog()


def acting_env(site: Site, policy: GreedyPolicy, explore: float) -> ActingEnv:
    """A site under a policy; `Resumable` where its environment is."""
    kind = ResumableActingEnv if isinstance(site.env.unwrapped, Resumable) else ActingEnv
    return kind(site, policy, explore)


def disagreement(policy: GreedyPolicy, log: StepLog) -> str:
    """What is wrong with a site's afterstates and step rewards by what its environment did; empty where nothing is.

    An afterstate must lead to what was observed next, where the site says how (`Decisions.replayed`). Rewards must
    vary with what `step_rewards` says; they need not be equal, for part of a reward may not be known before.

    Args:
        policy: of the site.
        log: of its steps, two at least.

    Raises:
        WorkloadBehaviourError: the site's functions give arrays of another shape.
    """
    decisions = policy.decisions
    if decisions.afterstates is None or decisions.step_rewards is None or len(log.rewards) < 2:
        return ""
    seen, actions = np.stack(log.observations), np.stack([np.asarray(each) for each in log.actions])
    rewards = np.array(log.rewards)
    expected = np.asarray(decisions.step_rewards(seen, actions), dtype=np.float64)
    after = np.asarray(decisions.afterstates(seen, actions))
    for name, found, shape in (("step_rewards", expected, rewards.shape), ("afterstates", after, seen.shape)):
        if found.shape != shape:
            raise WorkloadBehaviourError(
                f"{name} of site {policy.index} gave an array of shape {found.shape} for {len(seen)} steps; "
                f"it must be {shape}"
            )
    if decisions.replayed is not None:
        following = np.asarray(decisions.replayed(seen[1:], after[:-1]))
        apart = np.abs(following - seen[1:]).reshape(len(following), -1).max(axis=1)
        wrong = np.flatnonzero(
            apart > 1e-6 * np.maximum(1.0, np.abs(seen[1:]).reshape(len(following), -1).max(axis=1))
        )
        if wrong.size:
            first = int(wrong[0])
            return (
                f"the afterstate of action {log.actions[first]!r} in {seen[first].tolist()} leads to "
                f"{following[first].tolist()}, and the environment went to {seen[first + 1].tolist()} "
                f"({wrong.size} of {len(following)} steps disagree): correct afterstates or replayed"
            )
    variance = float(np.var(rewards))
    unexplained = float(np.var(rewards - expected))
    if variance > 0.0 and unexplained > 0.5 * variance:
        return (
            f"step_rewards leave {unexplained / variance:.0%} of the variance of the rewards unexplained; at most "
            "half may be: correct step_rewards, or give action_features"
        )
    return ""
