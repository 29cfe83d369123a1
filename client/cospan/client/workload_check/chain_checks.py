"""Checks of environments and policies: what a chain is, that (seed, index) decide it, and that it can be saved."""

import copy
from collections.abc import Callable, Sequence

import numpy as np

from cospan.client.environment.group_rollout import chain_group
from cospan.client.environment.ownership import close_site, close_sites, user_code
from cospan.client.environment.plain_values import packed
from cospan.client.environment.rollout import Chain
from cospan.client.environment.workload_loader import make_site, make_sites
from cospan.client.workload import Resumable, Site, Workload
from cospan.client.workload_check.findings import Finding, Severity
from cospan.client.workload_check.play import Play, difference, is_same, play
from cospan.wire.errors import CospanError, WorkloadBehaviourError

_OFTEN = 0.01
"""Share of steps with a true end above which a long-run average is questionable."""
_STUCK = 0.5
"""Share of a play, at its end, in which one observation only means that the chain is stuck."""
_STUCK_STEPS = 50
_TRIES = 20
"""Observations with which a policy is asked twice."""
_FLEET_STEPS = 50


def environment_site(workload: Workload, index: int, seed: int) -> Site:
    """A site with an environment, made again.

    Raises:
        WorkloadBehaviourError: it has a source of steps now.
    """
    site = make_site(workload, index, seed)
    if isinstance(site, Site):
        return site
    raise WorkloadBehaviourError(
        f"site {index} has an environment at first, and then none; make it alike each time"
    )


def of_play(played: Play, where: str) -> list[Finding]:
    """Of the chain as a whole: ends, time limits, and what never changes."""
    found = []
    steps = len(played.rewards)
    if played.outside > 1:
        what = f"{played.outside} of {len(played.observations)} observations are outside of the observation_space"
        found.append(Finding(Severity.NOTE, "observation-space", what, where))
    if played.ends > max(1.0, _OFTEN * steps):
        found.append(
            Finding(
                Severity.WARNING,
                "never-ends",
                f"{played.ends} of {steps} steps are a true end (`terminated`), which is a transition into the "
                "next start state",
                where,
                "see that a long-run average is what you want of a task with ends; if the end is a time limit, "
                "return it as `truncated`",
            )
        )
    if played.limits:
        what = f"{played.limits} of {steps} steps are at a time limit (`truncated`), and the chain is stepped on"
        remedy = "see that `step` works after it, or make the environment without a limit"
        found.append(Finding(Severity.NOTE, "never-ends", what, where, remedy))
    if steps > 1 and len(set(played.rewards)) == 1:
        what = f"all {steps} rewards are {played.rewards[0]:g}, so all values are 0"
        remedy = "see that the reward depends on the state or the action; play more steps if it is rare"
        found.append(Finding(Severity.WARNING, "reward-varies", what, where, remedy))
    return found + _stuck(played, where)


def _stuck(played: Play, where: str) -> list[Finding]:
    last = played.observations[-1]
    same = 0
    for observation in reversed(played.observations):
        if not is_same(observation, last):
            break
        same += 1
    steps = len(played.rewards)
    if same <= max(_STUCK * steps, _STUCK_STEPS):
        return []
    since = len(played.observations) - same
    what = f"the observation does not change from step {since} to step {steps}"
    remedy = "let the policy return to every state that it visits: a chain that gets stuck has no long-run values"
    return [Finding(Severity.WARNING, "recurrent", what, where, remedy)]


def of_determinism(
    workload: Workload, site: Site, first: Play, where: str, *, index: int, seed: int
) -> list[Finding]:
    """Whether (seed, index) decide the site, and a reset its play.

    Args:
        workload: makes the same site again.
        site: that has been played.
        first: its play.
        where: names the site in findings.
        index: of the site.
        seed: of the run.
    """
    steps = len(first.rewards)
    twin = environment_site(workload, index, seed)
    try:
        again = play(twin, where, index=index, seed=seed, steps=steps)
    finally:
        close_site(twin)
    apart = difference(first, again)
    if apart:
        what = f"made twice from seed {seed} and index {index}, the site differs: {apart}"
        remedy = (
            "draw from np.random.default_rng((seed, index)) in the workload, from self.np_random in the "
            "environment and from the given generator in the policy, and depend on no clock and no earlier site"
        )
        return [Finding(Severity.PROBLEM, "deterministic", what, where, remedy)]
    apart = difference(first, play(site, where, index=index, seed=seed, steps=steps))
    if apart:
        what = f"after a reset with the same seed the site plays otherwise than at first: {apart}"
        remedy = "let `reset` set everything that steps change, and call super().reset(seed=seed) in it"
        return [Finding(Severity.WARNING, "reset-forgets", what, where, remedy)]
    return []


def of_policy(site: Site, played: Play, where: str) -> list[Finding]:
    """Whether the policy is a function of (observation, generator): asked twice, it says the same."""
    places = np.linspace(0, len(played.observations) - 1, _TRIES).astype(int)
    for place in dict.fromkeys(places.tolist()):
        observation = played.observations[place]
        with user_code("the policy raised when it was asked again"):
            actions = [site.policy(copy.deepcopy(observation), np.random.default_rng((place, 1))) for _ in range(2)]
        if not is_same(actions[0], actions[1]):
            what = "the policy gives two actions for one observation and one state of its generator"
            remedy = "take random numbers from the generator that it is given, and keep no state in it"
            return [Finding(Severity.WARNING, "policy-function", what, f"{where}, step {place}", remedy)]
    return []


def of_saved_state(workload: Workload, where: str, *, index: int, seed: int, steps: int) -> list[Finding]:
    """Whether a saved chain continues to the bit in another environment, where it can be saved at all."""
    site = environment_site(workload, index, seed)
    try:
        env = getattr(site.env, "unwrapped", site.env)
        if not isinstance(env, Resumable):
            what = "the environment cannot save its state, so a restarted agent begins a new chain"
            remedy = "give it save_state and load_state where chains are long or steps are dear"
            return [Finding(Severity.NOTE, "resumable", what, where, remedy)]
        chain = Chain(site, name=where, index=index, seed=seed)
        chain.advance(steps)
        problem = _unsavable(env)
        if problem:
            return [_unresumed(f"the state cannot be saved: {problem}", where)]
        saved = chain.saved()
        expected = chain.advance(steps)
    finally:
        close_site(site)
    other = environment_site(workload, index, seed)
    try:
        again = Chain(other, name=where, index=index, seed=seed)
        refused = again.go_on(steps, 0.0, saved)
        if refused:
            return [_unresumed(refused, where)]
        found = again.advance(steps)
    finally:
        close_site(other)
    unequal = [
        step for step in range(steps) if expected.rewards[step].tobytes() != found.rewards[step].tobytes()
    ] or [
        step for step in range(steps) if not np.array_equal(expected.features[step + 1], found.features[step + 1])
    ]
    if not unequal:
        return []
    return [_unresumed(f"restored from its saved state, the chain differs {unequal[0] + 1} steps later", where)]


def _unsavable(env: Resumable) -> str:
    """Why the state cannot be saved; empty where it can."""
    try:
        packed(dict(env.save_state()))
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # of the user's code
        return f"{type(failure).__name__}: {failure}"
    return ""


def _unresumed(what: str, where: str) -> Finding:
    remedy = (
        "save all that the next steps depend on besides np_random, as numbers, text, arrays, lists and "
        "dictionaries, and set it again in load_state"
    )
    return Finding(Severity.PROBLEM, "resumable", what, where, remedy)


def of_fleet(workload: Workload, indices: Sequence[int], *, seed: int, steps: int) -> list[Finding]:
    """Whether `make_fleet`, where there is one, steps each site as `make_site` does, to the bit."""
    if workload.make_fleet is None:
        return []
    steps = min(steps, _FLEET_STEPS)
    names = [f"site {index}" for index in indices]
    try:
        sites = make_sites(workload, indices, seed)
        try:
            group = chain_group(sites, names=names, indices=indices, seed=seed).advance(steps)
        finally:
            close_sites(sites)
    except WorkloadBehaviourError as failure:
        return [Finding.of_failure("make-fleet", failure, "make_fleet")]
    for place, index in enumerate(indices):
        site = environment_site(workload, index, seed)
        try:
            alone = Chain(site, name=names[place], index=index, seed=seed).advance(steps)
        finally:
            close_site(site)
        same = np.array_equal(alone.rewards, group.rewards[place])
        if not same or not np.array_equal(alone.features, group.features[place]):
            what = f"stepped with others by make_fleet, the site plays otherwise than alone within {steps} steps"
            remedy = "draw from the same generator, in the same order, as in make_site's environment"
            return [Finding(Severity.PROBLEM, "make-fleet", what, names[place], remedy)]
    return []


def guarded(rule: str, where: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings of a check; an error of the user's code in it is a problem."""
    try:
        return check()
    except CospanError as failure:
        return [Finding.of_failure(rule, failure, where)]
