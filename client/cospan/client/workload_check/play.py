"""Plays a site under its policy, as an agent would, and looks at everything that comes back."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cospan.client.environment.actions import problem_of_action
from cospan.client.environment.ownership import user_code
from cospan.client.environment.rollout import origin_of_chain
from cospan.client.workload import Site
from cospan.client.workload_check.findings import Finding, Severity
from cospan.wire.errors import WorkloadBehaviourError

_LONGEST = 80
"""Characters of a value that a sentence shows."""


@dataclass(slots=True)
class Play:
    """What came back from a site.

    Attributes:
        observations: of the start and after each step; after a true end that of the next start.
        actions: of each step.
        rewards: of each step.
        ends: steps with a true end.
        limits: steps at a time limit.
        outside: number of observations outside the observation space.
        findings: what was wrong.
        complete: whether all steps could be taken.
    """

    observations: list[Any] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    ends: int = 0
    limits: int = 0
    outside: int = 0
    findings: list[Finding] = field(default_factory=list)
    complete: bool = False


class _BreakError(Exception):
    """The play cannot continue; the finding says why."""

    def __init__(self, rule: str, what: str, remedy: str, where: str = "") -> None:
        super().__init__(what)
        self.finding = Finding(Severity.PROBLEM, rule, what, where, remedy)


def play(site: Site, where: str, *, index: int, seed: int, steps: int) -> Play:
    """Steps a site as its agent's chain would; what is wrong is in the findings.

    Args:
        site: the environment and the policy; the features are not computed.
        where: names the site in findings.
        index: of the site.
        seed: of the run; both together give the seed of the reset and the policy's generator.
        steps: to take.
    """
    played = Play()
    try:
        for step in _steps(played, site, where, origin_of_chain(seed, index, 0, 0)):
            if step >= steps:
                break
        played.complete = True
    except _BreakError as stop:
        played.findings.append(stop.finding)
    except WorkloadBehaviourError as failure:
        place = f"{where}, step {len(played.rewards)}" if played.observations else f"{where}, reset"
        remedy = "let the environment, the policy and the features take whatever the chain visits"
        played.findings.append(Finding(Severity.PROBLEM, "no-exception", str(failure), place, remedy))
    return played


def _steps(played: Play, site: Site, where: str, origin: tuple[int, np.random.Generator]) -> Iterator[int]:
    """Takes one step after another; yields the number taken so far."""
    seed, rng = origin
    with user_code("`reset` raised"):
        answer: Any = site.env.reset(seed=seed)
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], Mapping):
        raise _BreakError(
            "reset-contract",
            f"`reset` returned {_shown(answer)}, which is no (observation, info)",
            "return the first observation and a dictionary",
            where,
        )
    _take(played, site, answer[0], f"{where}, reset")
    while True:
        yield len(played.rewards)
        place = f"{where}, step {len(played.rewards)}"
        with user_code("the policy raised"):
            action = site.policy(played.observations[-1], rng)
        _look_at_action(played, site, action, place)
        with user_code(f"`step` raised for the action {_shown(action)}"):
            answer = site.env.step(action)
        if not isinstance(answer, tuple) or len(answer) != 5:
            raise _BreakError(
                "step-contract",
                f"`step` returned {_shown(answer)}, which is no (observation, reward, terminated, truncated, info)",
                "return these five values",
                place,
            )
        observation, reward, terminated, truncated, _ = answer
        played.rewards.append(_number(reward, place))
        played.ends += bool(terminated)
        played.limits += bool(truncated)
        if terminated:
            with user_code("`reset` after a true end raised"):
                observation, _ = site.env.reset()
        _take(played, site, observation, place)


def _take(played: Play, site: Site, observation: Any, where: str) -> None:
    """Keeps an observation as it is now: an environment may write into the same array again."""
    if not _is_finite(observation):
        raise _BreakError(
            "observation-finite",
            f"the observation {_shown(observation)} has an entry that is not finite",
            "make every entry a finite number",
            where,
        )
    space = site.env.observation_space
    with user_code("`observation_space.contains` raised"):
        inside = space.contains(observation)
    if not inside:
        played.outside += 1
        if played.outside == 1:
            played.findings.append(
                Finding(
                    Severity.WARNING,
                    "observation-space",
                    f"the observation {_shown(observation)} of {_kind(observation)} is outside of its "
                    f"observation_space {space}",
                    where,
                    "correct the bounds, shape or dtype of the space, or the observation: feature maps clip to "
                    "their box, and what is beyond it looks alike",
                )
            )
    played.observations.append(copy.deepcopy(observation))


def _look_at_action(played: Play, site: Site, action: Any, where: str) -> None:
    problem = problem_of_action(site.env.action_space, action)
    if problem and not any(finding.rule == "action-space" for finding in played.findings):
        what, remedy = f"the policy took an action {problem}", "correct the policy, or the space"
        played.findings.append(Finding(Severity.PROBLEM, "action-space", what, where, remedy))
    played.actions.append(copy.deepcopy(action))


def _number(reward: Any, where: str) -> float:
    try:
        value = float(reward)
    except (TypeError, ValueError):
        what = f"the reward is {_shown(reward)}, which is no number"
        raise _BreakError("reward-number", what, "return one number", where) from None
    if not math.isfinite(value):
        raise _BreakError("reward-finite", f"the reward is {value}", "make every reward a finite number", where)
    return value


def _is_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, tuple | list):
        return all(map(_is_finite, value))
    if isinstance(value, float | np.ndarray | np.generic):
        array = np.asarray(value)
        return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())
    return True


def _shown(value: Any) -> str:
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of the user's own class
        text = f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"shape {value.shape} and dtype {value.dtype}"
    return f"type {type(value).__name__}"


def difference(one: Play, other: Play) -> str:
    """The first step in which two plays differ, in words; empty where they are equal to the bit."""
    if not is_same(one.observations[:1], other.observations[:1]):
        return _apart("first observation", one.observations[0], other.observations[0])
    rows = zip(one.rewards, other.rewards, one.observations[1:], other.observations[1:], strict=False)
    for step, (reward, other_reward, observation, other_observation) in enumerate(rows):
        if not is_same(one.actions[step], other.actions[step]):
            return _apart(f"action of step {step}", one.actions[step], other.actions[step])
        if not is_same(reward, other_reward):
            return _apart(f"reward of step {step}", reward, other_reward)
        if not is_same(observation, other_observation):
            return _apart(f"observation after step {step}", observation, other_observation)
    if len(one.rewards) != len(other.rewards):
        return f"one ended after {len(one.rewards)} steps and the other after {len(other.rewards)}"
    return ""


def _apart(what: str, one: Any, other: Any) -> str:
    return f"the {what} is {_shown(one)} in one and {_shown(other)} in the other"


def is_same(one: Any, other: Any) -> bool:
    """Whether two observations, actions or rewards are equal, to the bit."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        first, second = np.asarray(one), np.asarray(other)
        return first.dtype == second.dtype and bool(np.array_equal(first, second))
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str | bytes):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)
