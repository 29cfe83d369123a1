"""A step as it is told, what became of it, and how a feed is set up and stands."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cospan.wire.errors import InvalidValueError

MOST_SEQUENCE = 2**63 - 1
BACKLOG_STEPS = 100_000
REWARD_DELAY = 100


class Outcome(StrEnum):
    """What became of a step that was told."""

    NEW = "new"
    """It is in the backlog."""
    REPEATED = "repeated"
    """It was there before; it counts once."""
    PAST = "past"
    """It is older than all that is remembered, so it was there before or was skipped; it does not count again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSettings:
    """How an agent takes steps from a control loop.

    Attributes:
        backlog: the file of the steps that nothing learnt includes yet. None for a file beside the agent's own
            (`state_file`), with the suffix `.feed`; without that either, steps are kept in memory, and those that
            were not learnt are lost with the process.
        limit: steps that the backlog may hold.
        reward_delay: how many later steps a reward may come after its own.
        reward_at_next: whether a reward is that of the step that ends in its observation, as Gymnasium's `step`
            returns them, rather than of the one that begins there; None for that of the mapping, or for False.
        step: the time between two steps, as "15min" or seconds; None for that of the mapping, or for none, in which
            case the sequence alone tells gaps.
    """

    backlog: Path | str | None = None
    limit: int = BACKLOG_STEPS
    reward_delay: int = REWARD_DELAY
    reward_at_next: bool | None = None
    step: str | float | None = None

    def __post_init__(self) -> None:
        """Raises InvalidValueError where a number is out of range."""
        if self.limit < 1:
            raise InvalidValueError(f"the limit of a backlog is {self.limit}; it must be at least 1 step")
        if self.reward_delay < 0:
            raise InvalidValueError(f"reward_delay is {self.reward_delay}; it must be a number of steps, 0 or more")


@dataclass(frozen=True, slots=True)
class FeedStep:
    """A step as it is told.

    Attributes:
        observation: as the site's form takes it; None where a reward alone is told.
        reward: None where it comes later; nan where it is not known and will not come.
        sequence: its number; None to take it from `at`, or, of one sender in this process, the next one.
        at: its time: a datetime, an ISO 8601 text, or a number.
    """

    observation: Any = None
    reward: Any = None
    sequence: Any = None
    at: Any = None


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """Where a feed stands.

    Attributes:
        newest: the number of the newest step; None where there is none.
        held: steps that nothing learnt in a file includes yet.
        accepted: steps since the process began.
        repeated: of the steps told, those that were there before, or are older than what is remembered.
        refused: of the steps told, those that were wrong.
        silent_seconds: since the last accepted step, or the beginning.
        usual_seconds: between two steps, about; None before the second.
    """

    newest: int | None
    held: int
    accepted: int
    repeated: int
    refused: int
    silent_seconds: float
    usual_seconds: float | None
