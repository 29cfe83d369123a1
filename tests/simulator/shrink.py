"""A plan that fails is reduced to one that cannot be reduced any more, and is printed as a test."""

from collections.abc import Callable
from dataclasses import replace

from simulator.plan import Fault, Plan, source_of
from simulator.world import Result, play

_MOST_PLAYS = 400


def shrink(plan: Plan, fails: Callable[[Plan], bool] | None = None, most_plays: int = _MOST_PLAYS) -> Plan:
    """The plan with as few faults as still fail, and few agents; without one of those left it does not fail.

    Args:
        plan: fails.
        fails: whether a plan does; by default, whether playing it violates what must hold.
        most_plays: bounds the time; the plan is the smallest that was found until then.
    """
    fails = fails or (lambda candidate: bool(play(candidate).violation))
    plays = 0

    def still_fails(candidate: Plan) -> bool:
        nonlocal plays
        plays += 1
        return plays <= most_plays and fails(candidate)

    size = max(1, len(plan.faults) // 2)
    while plan.faults:
        smaller = _without_one_part(plan, size, still_fails)
        if smaller is not None:
            plan = smaller
            size = min(size, max(1, len(plan.faults) // 2))
        elif size == 1:
            break
        else:
            size //= 2
    while len(plan.settings.processes) > 3:
        processes = plan.settings.processes[:-1]
        cohort = min(plan.settings.min_cohort, len(processes))
        fewer = replace(plan, settings=replace(plan.settings, processes=processes, min_cohort=cohort))
        if not still_fails(fewer):
            break
        plan = fewer
    return plan


def _without_one_part(plan: Plan, size: int, fails: Callable[[Plan], bool]) -> Plan | None:
    """The plan without some faults in a row, if it still fails without them."""
    for begin in range(0, len(plan.faults), size):
        left: tuple[Fault, ...] = plan.faults[:begin] + plan.faults[begin + size :]
        candidate = replace(plan, faults=left)
        if fails(candidate):
            return candidate
    return None


def pasteable_test(plan: Plan, result: Result) -> str:
    """A test that fails as the plan does; it belongs into tests/property/test_simulator_failures.py."""
    body = source_of(plan).replace("\n", "\n    ")
    head = f'def test_seed_{plan.seed}() -> None:\n    """{result.violation}"""\n'
    return f'{head}    plan = {body}\n    assert play(plan).violation == ""'
