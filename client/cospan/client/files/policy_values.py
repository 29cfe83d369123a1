"""What a run with improvement steps adds to an agent's file: policies, the trial that has begun, and the evidence.

All else that an `Improver` holds follows from the workload and the run's seed.
"""

import json
import math
from typing import Any

import numpy as np

from cospan.client.decisions.acting_env import StepLog
from cospan.client.decisions.improver import MOST_LOGGED, Trial
from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.decisions.step_decision import StepDecision
from cospan.client.files.agent_result import AgentResult
from cospan.client.learning.improving_learner import ImprovingLearner
from cospan.core.specification import RunSpecification
from cospan.wire.errors import RunFileError

HELD, TRIED = "policy", "trial"
"""Before the names of what the held policy, and the one that is tried, are made of."""
DECISIONS = "improvement_decisions"
"""The evidence of all steps, as JSON."""


def improvement_values(learner: ImprovingLearner) -> dict[str, Any]:
    """The policies, the trial and the evidence of a learner, as they are now; arrays are copied."""
    improver, source = learner.improver, learner.source
    trial = improver.trial
    return {
        **_policy_values(HELD, improver.policy, learner.specification.feature_dim),
        **_policy_values(TRIED, None if trial is None else trial.new, learner.specification.feature_dim),
        "policy_problem": improver.problem,
        "trial_step": -1 if trial is None else trial.step,
        "trial_problem": "" if trial is None else trial.problem,
        **_log_values("trial_log", StepLog() if trial is None else trial.log),
        **_log_values("improvement_log", improver.log),
        DECISIONS: json.dumps([each.as_dict() for each in improver.decisions]),
        "improvement_rounds": learner.rounds_taken_part,
        "improvement_chain_steps": source.steps,
        "improvement_chain_rewards": source.reward_sum,
    }


def load_improvement(learner: ImprovingLearner, result: AgentResult) -> tuple[int, float]:
    """Restores what `improvement_values` gave; nothing changes where the file is damaged.

    Returns:
        The steps of the source, and the sum of their rewards.

    Raises:
        RunFileError: a value is missing, or is something else.
    """
    improver = learner.improver
    given, trial = improver.given, None
    held = None if given is None else loaded_policy(result, HELD, given)
    step = result.whole("trial_step", least=-1)
    if step >= 0:
        new = None if given is None else loaded_policy(result, TRIED, given)
        tried = None if new is None or new.is_given else new
        trial = Trial(step, tried, result.text("trial_problem"), _loaded_log(result, "trial_log"))
    decisions = loaded_decisions(result)
    log, rounds = _loaded_log(result, "improvement_log"), result.whole("improvement_rounds")
    steps, rewards = result.whole("improvement_chain_steps"), result.number("improvement_chain_rewards")
    learner.held_rewards = result.number("reward_sum")
    learner.rounds_taken_part = rounds
    improver.restore(held, trial, decisions, log)
    return steps, rewards


def loaded_policy(result: AgentResult, prefix: str, given: GreedyPolicy) -> GreedyPolicy:
    """A policy in a file.

    Args:
        result: the file.
        prefix: of its names.
        given: the policy that improvement of the site begins with.

    Raises:
        RunFileError: a value is missing, or is something else.
    """
    if result.flag(f"{prefix}_is_given"):
        return given
    dim = given.features.dim
    root = None
    if result.array(f"{prefix}_root").shape[:1] != (0,):
        root = result.vector(f"{prefix}_root", dim, dim)
    caution = result.number(f"{prefix}_caution")
    if not 0.0 <= caution < math.inf:
        raise RunFileError(f"'{prefix}_caution' in the result of an agent is {caution}; the file is damaged")
    return given.learnt(result.vector(f"{prefix}_weights", dim), root, caution)


def loaded_decisions(result: AgentResult) -> list[StepDecision]:
    """The evidence in a file; empty where the run has no improvement steps.

    Raises:
        RunFileError: it is something else.
    """
    if DECISIONS not in result.values:
        return []
    try:
        return [StepDecision.of_dict(each) for each in json.loads(result.text(DECISIONS))]
    except (ValueError, TypeError, KeyError, RecursionError) as failure:
        raise RunFileError(
            f"{DECISIONS!r} in the result of an agent is no list of decisions; the file is damaged"
        ) from failure


def most_bytes_of_policies(specification: RunSpecification) -> int:
    """The most bytes that policies and logs have, what observations and actions are made of within 64 numbers."""
    d = specification.feature_dim
    steps = min(MOST_LOGGED, specification.schedule.rounds * specification.method.steps_per_round) + 2
    return 8 * (2 * d * d + 2 * d + 2 * 65 * steps)


def _policy_values(prefix: str, policy: GreedyPolicy | None, dim: int) -> dict[str, Any]:
    is_given = policy is None or policy.weights is None
    return {
        f"{prefix}_is_given": np.bool_(is_given),
        f"{prefix}_weights": np.zeros(dim) if policy is None or policy.weights is None else policy.weights,
        f"{prefix}_root": np.zeros((0, dim)) if policy is None or policy.root is None else policy.root,
        f"{prefix}_caution": 0.0 if policy is None else float(policy.caution),
    }


def _log_values(prefix: str, log: StepLog) -> dict[str, Any]:
    return {
        f"{prefix}_observations": np.array(log.observations),
        f"{prefix}_actions": np.array(log.actions),
        f"{prefix}_rewards": np.array(log.rewards, dtype=np.float64),
    }


def _loaded_log(result: AgentResult, prefix: str) -> StepLog:
    rewards = result.numbers(f"{prefix}_rewards", 1)
    observations, actions = result.array(f"{prefix}_observations"), result.array(f"{prefix}_actions")
    if not len(observations) == len(actions) == len(rewards):
        raise RunFileError(
            f"'{prefix}' in the result of an agent has rows of different numbers; the file is damaged"
        )
    taken = [int(each) if np.ndim(each) == 0 else each for each in actions]
    return StepLog([np.asarray(each) for each in observations], taken, rewards.tolist())
