"""Queues whose policies get better; each method has steps of its own, for what comes depends on who decides."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cospan.client.decisions.acting_env import ActingEnv, StepLog
from cospan.client.decisions.logged_values import action_values, prior_of_values
from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.decisions.trials import Turns
from cospan.client.environment.rollout import checked_features
from cospan.client.workload import Site
from cospan.client.workloads import queues
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.experiments.decisions.policy_tests import queue_worth
from cospan.experiments.decisions.schedule import (
    ALONE,
    EXPLORE,
    GATED,
    GIVEN,
    JOINT,
    TAG,
    Schedule,
    Worth,
    initial_fleet,
    is_proved,
    prior_of,
)
from cospan.experiments.methods.compared_methods import JointFleet

CAUTION = 0.5
"""κ of the policies."""


@dataclass(eq=False, slots=True)
class _Queue:
    """One queue under one method."""

    env: ActingEnv
    log: StepLog
    is_new: bool = False
    newest: GreedyPolicy | None = None

    @classmethod
    def of(cls, site: Site, index: int, seed: int) -> "_Queue":
        env = ActingEnv(site, GreedyPolicy.given(site, index=index, workload="queues", seed=seed), EXPLORE)
        env.reset(seed=int(np.random.SeedSequence((seed, index, TAG)).generate_state(1)[0]))
        return cls(env, StepLog())

    @property
    def held(self) -> GreedyPolicy:
        return self.env.policy

    def act(self, steps: int) -> None:
        self.env.act(steps)
        self.log = self.log.followed_by(self.env.take_log())

    def rounds(self, steps: int, block: int) -> list[Trajectory]:
        """The newest steps in rounds: pairs, and the rewards of each."""
        newest = self.log.tail(steps + 1)
        pairs = self.held.pairs(np.array(newest.observations), np.array(newest.actions))
        features = checked_features(self.held.features, pairs, f"queue {self.held.index}")
        rewards = np.array(newest.rewards)
        return [
            Trajectory(features[at : at + block + 1], rewards[at : at + block]) for at in range(0, steps, block)
        ]

    def decided(self, new: GreedyPolicy, steps: int) -> None:
        """The trial of a new policy."""
        held, self.newest = self.held, new
        turns = Turns.of(steps)
        for count, is_new in turns.spans(0, 2 * turns.pairs * turns.block):
            self.env.policy = new if is_new else held
            self.env.act(count)
        self.env.policy = held
        trial = self.env.take_log()
        self.log = self.log.followed_by(trial)
        if is_proved(turns.differences(trial.rewards)):
            self.env.policy = new
        self.is_new = self.held is not held

    def worth(self, seed: int, policy: GreedyPolicy | None = None) -> tuple[float, float]:
        """`queue_worth` of a policy, the held one where left out."""
        return queue_worth(policy or self.held, seed)


def queues_improved(seed: int, agents: int, schedule: Schedule) -> Iterator[Worth]:
    """Worth of all policies before the first step and after each: gain as a share of the optimum, and itself.

    Without the gate an agent has the newest policy, whatever its trial has shown.
    """
    runs = {
        method: [_Queue.of(queues.make_site(index, seed), index, seed) for index in range(agents)]
        for method in GATED
    }
    block = queues.workload.steps_per_round
    before = [each.worth(seed) for each in runs[ALONE]]
    fleet = initial_fleet(runs[JOINT][0].held, schedule.rank, seed, agents, block)
    yield dict.fromkeys((GIVEN, *GATED, *GATED.values()), before)
    for _ in range(schedule.steps):
        for method, own in runs.items():
            for agent in own:
                agent.act(schedule.evaluation * block)
            if method == JOINT:
                fleet = _learnt(fleet, own, schedule.evaluation * block, block)
            _step(own, fleet if method == JOINT else None, schedule.trial * block)
        found: Worth = {GIVEN: before}
        for method, own in runs.items():
            found[method] = [each.worth(seed) for each in own]
            found[GATED[method]] = [each.worth(seed, each.newest) for each in own]
        yield found


def _learnt(fleet: JointFleet, agents: Sequence[_Queue], steps: int, block: int) -> JointFleet:
    """The fleet after the newest steps of its agents; statistics are of the policies that they hold."""
    if fleet.round:
        states = tuple(
            LearnerState.initial(fleet.basis.shape[1]) if agent.is_new else state
            for agent, state in zip(agents, fleet.states, strict=True)
        )
        fleet = replace(fleet, states=states)
    for trajectories in zip(*(agent.rounds(steps, block) for agent in agents), strict=True):
        fleet = fleet.learning_from(trajectories)
    return fleet


def _step(agents: Sequence[_Queue], fleet: JointFleet | None, trial: int) -> None:
    """The new policies of all agents, and their trials."""
    for index, agent in enumerate(agents):
        prior = None if fleet is None else prior_of_values(fleet.states[index], prior_of(fleet))
        new = agent.held.learnt(*action_values(agent.held, agent.log, prior), CAUTION)
        agent.decided(new, trial)
