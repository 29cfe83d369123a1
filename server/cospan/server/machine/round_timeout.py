"""How long an open round waits for an agent that is alive: from the agents' own pace, where all of them are slow.

`round_timeout_seconds` keeps one agent from holding up the others. Where no agent at all has sent a gradient by
then, none is held up: the round itself takes so long, as with a feed that brings a value an hour. It then waits for
its first gradient, and as long again for the rest. A round whose first gradient came in time is bounded by
`round_timeout_seconds` as ever. See docs/adr/0016.
"""

from typing import Any

from cospan.server.machine.state import CoordinatorState
from cospan.wire.messages import RunPhase

_SLOWER = 10.0
"""An agent of a fleet whose pace is known may take so many times the longest that a first gradient has taken."""
_AFTER_THE_FIRST = 2.0
"""The others may take so many times what the first gradient has taken."""


def longest_round(state: CoordinatorState) -> float:
    """Seconds after which the open round gives up an agent that is alive; `round_timeout_seconds` or more.

    Agents that return after a restart first learn again what they lost, so a frozen round waits for them as long as
    the restart waits for their return.
    """
    least = state.specification.round_timeout_seconds
    if state.frozen:
        least = max(least, state.return_seconds)
    if state.silent_seconds <= least:
        return least
    if state.contributions:
        took = state.first_seconds
        return least if took < least else min(_AFTER_THE_FIRST * took, _AFTER_THE_FIRST * state.silent_seconds)
    if not state.slowest_first:
        return state.silent_seconds
    return min(max(least, _SLOWER * state.slowest_first), state.silent_seconds)


def is_slow(state: CoordinatorState, now: float) -> bool:
    """Whether the open round is past `round_timeout_seconds` without a gradient, and it has not been said yet."""
    return slow_at(state) is not None and now - state.phase_since >= state.specification.round_timeout_seconds


def slow_at(state: CoordinatorState) -> float | None:
    """When that is to be said; None where there is nothing to say."""
    waits = state.phase is RunPhase.COLLECTING and bool(state.awaited) and not state.contributions
    if (
        not waits
        or state.slow_round == state.round
        or longest_round(state) <= state.specification.round_timeout_seconds
    ):
        return None
    return state.phase_since + state.specification.round_timeout_seconds


def with_first(state: CoordinatorState, now: float) -> dict[str, Any]:
    """What changes with a gradient that counts in the open round: how long the first one took."""
    if state.contributions:
        return {}
    took = now - state.phase_since
    return {"first_seconds": took, "slowest_first": max(state.slowest_first, took)}
