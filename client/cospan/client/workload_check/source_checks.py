"""Checks of a site whose steps come from elsewhere than an environment, as from a log or a control loop."""

import threading
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from cospan.client.environment.workload_loader import make_site
from cospan.client.step_source import SourceInterruptedError, StepSource
from cospan.client.workload import SourceSite, Workload
from cospan.client.workload_check import feature_checks
from cospan.client.workload_check.findings import Finding, Severity
from cospan.core.learning.learner_state import Trajectory

WAIT_SECONDS = 10.0
"""Longest wait for steps that have not been taken yet."""


def of_source(
    workload: Workload, site: SourceSite, where: str, *, index: int, seed: int, steps: int
) -> tuple[list[Finding], Float[np.ndarray, "n d"] | None]:
    """What a source gives: its warnings, its end, whether it repeats itself, and what its features span.

    Args:
        workload: makes the same site again.
        site: of the workload.
        where: names it in findings.
        index: of the site.
        seed: of the run.
        steps: to take at most.

    Returns:
        The findings, and φ of the states that its transitions leave; None where it has none.

    Raises:
        WorkloadBehaviourError: its data cannot be learnt from.
    """
    length = max(1, workload.steps_per_round)
    source = site.open_source(where)
    try:
        rounds, waited = _taken(source, length, steps)
        found = [Finding(Severity.WARNING, "source", each.text, where) for each in source.take_warnings()]
        given, over = source.steps, source.at_end
    finally:
        source.close()
    if waited:
        what = f"the source gave {given} transitions and then none for {WAIT_SECONDS:g} s"
        found.append(Finding(Severity.NOTE, "source", what, where, "check again when it has given more"))
    elif over and given < steps:
        what = f"the source holds {given} transitions in all"
        found.append(Finding(Severity.NOTE, "source", what, where))
    rows = (
        np.concatenate([each.features[:-1][_transitions(each)] for each in rounds]) if rounds else np.empty((0, 0))
    )
    if not len(rows):
        what, remedy = "the source has no transition, so nothing can be learnt", "look for gaps in its data"
        return [*found, Finding(Severity.PROBLEM, "source", what, where, remedy)], None
    found += feature_checks.of_span(rows, None, where)
    if not waited:
        found += _of_repetition(workload, rounds, where, index=index, seed=seed, length=length)
    if all(each.is_transition is None for each in rounds):
        path = np.concatenate([rounds[0].features, *(each.features[1:] for each in rounds[1:])])
        rewards = np.concatenate([each.rewards for each in rounds])
        found += feature_checks.of_td_errors(path, rewards, where)
    return found, rows


def _taken(source: StepSource, length: int, steps: int) -> tuple[list[Trajectory], bool]:
    """Rounds with at most `steps` transitions, and whether the wait for more was ended."""
    found: list[Trajectory] = []
    timer = threading.Timer(WAIT_SECONDS, source.interrupt)
    timer.daemon = True
    timer.start()
    try:
        while source.steps < steps and not source.at_end:
            found.append(source.advance(length))
    except SourceInterruptedError:
        return found, True
    finally:
        timer.cancel()
    return found, False


def _of_repetition(
    workload: Workload, rounds: list[Trajectory], where: str, *, index: int, seed: int, length: int
) -> Iterator[Finding]:
    """Whether a source that is begun again gives the same bits."""
    site = make_site(workload, index, seed)
    if not isinstance(site, SourceSite):
        return
    source = site.open_source(where)
    try:
        again, _ = _taken(source, length, sum(each.transitions for each in rounds))
    finally:
        source.close()
    for number, (one, other) in enumerate(zip(rounds, again, strict=False)):
        masks = [_transitions(each) for each in (one, other)]
        same = all(map(np.array_equal, masks[:1], masks[1:])) and np.array_equal(one.features, other.features)
        if not same or not np.array_equal(one.known_rewards, other.known_rewards):
            what = f"begun again, the source gives other steps from step {number * length} on"
            remedy = "let it give the same steps in the same order each time"
            yield Finding(Severity.PROBLEM, "deterministic", what, where, remedy)
            return


def _transitions(round_: Trajectory) -> np.ndarray:
    """The slots of a round that are transitions, as a mask."""
    return np.ones(len(round_.rewards), np.bool_) if round_.is_transition is None else round_.is_transition
