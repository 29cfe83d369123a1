"""Steps as JSON: objects with sequence, at, observation and reward, or rows with the columns of a mapping.

{"sequence": 17, "observation": [0.3, 12.0], "reward": -0.4}
{"sequence": 17, "reward": -0.4}                                  a reward that comes later
{"stamp": "2026-03-01T17:00Z", "level": 40.5, "cost": 1.2}        a row, as it would stand in a log
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cospan.client.feeds.errors import BacklogFullError, FeedError, StepRefusedError
from cospan.client.feeds.feed import Feed
from cospan.client.feeds.step_forms import StepForm
from cospan.client.feeds.told import FeedStep, Outcome

MOST_BYTES = 1 << 20
"""Of a message; some thousand steps."""
_KEYS = frozenset({"sequence", "at", "observation", "reward"})
_SHOWN_ERRORS = 20


@dataclass(eq=False, slots=True)
class Told:
    """What became of the steps of a message.

    Attributes:
        accepted: new steps and rewards.
        repeated: those that were there before.
        past: those that are older than all that is remembered.
        refused: line and sentence of the first that were wrong.
        refusals: how many were.
        full: the sentence that the backlog is full; empty where it is not. Its steps can be sent again.
        newest: the number of the newest step; None where there is none.
    """

    accepted: int = 0
    repeated: int = 0
    past: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)
    refusals: int = 0
    full: str = ""
    newest: int | None = None

    def as_document(self) -> dict[str, object]:
        """As a JSON object."""
        found: dict[str, object] = {"accepted": self.accepted, "repeated": self.repeated, "newest": self.newest}
        if self.past:
            found["past"] = self.past
        if self.refusals:
            found["refused"] = self.refusals
            found["errors"] = [{"line": line, "error": text} for line, text in self.refused]
        return found | ({"full": self.full} if self.full else {})


def tell(feed: Feed, lines: Iterable[bytes], first_line: int = 1) -> Told:
    """Tells a feed the steps of JSON lines; those that are wrong take no other with them.

    Args:
        feed: of the agent.
        lines: one object each; empty ones are passed over.
        first_line: the number of the first.

    Raises:
        BacklogError: the disk is full or broken; none is accepted.
        FeedClosedError: the agent has ended.
    """
    read = [(number, read_step(line, feed.form)) for number, line in enumerate(lines, first_line) if line.strip()]
    return _told(feed, read)


def tell_document(feed: Feed, body: bytes) -> Told:
    """Tells a feed the steps of one JSON document: an object, or an array of objects; see `tell`."""
    try:
        document = _loaded(body)
    except StepRefusedError as failure:
        return _told(feed, [(1, failure)])
    objects = document if isinstance(document, list) else [document]
    return _told(feed, [(number, _step_or_error(each, feed.form)) for number, each in enumerate(objects, 1)])


def _told(feed: Feed, read: list[tuple[int, FeedStep | StepRefusedError]]) -> Told:
    steps = [step for _, step in read if isinstance(step, FeedStep)]
    outcomes = iter(feed.observe_all(steps))
    feed.count_refused(len(read) - len(steps))
    told = Told()
    for line, step in read:
        outcome: Outcome | FeedError = step if isinstance(step, StepRefusedError) else next(outcomes)
        if outcome is Outcome.NEW:
            told.accepted += 1
        elif outcome is Outcome.REPEATED:
            told.repeated += 1
        elif outcome is Outcome.PAST:
            told.past += 1
        elif isinstance(outcome, BacklogFullError):
            told.full = told.full or str(outcome)
        else:
            told.refusals += 1
            if len(told.refused) < _SHOWN_ERRORS:
                told.refused.append((line, str(outcome)))
    told.newest = feed.status().newest
    return told


def read_step(line: bytes, form: StepForm) -> FeedStep | StepRefusedError:
    """The step of a JSON object, or what is wrong with it."""
    try:
        return _step(_loaded(line), form)
    except StepRefusedError as failure:
        return failure


def _step_or_error(value: object, form: StepForm) -> FeedStep | StepRefusedError:
    try:
        return _step(value, form)
    except StepRefusedError as failure:
        return failure


def _loaded(text: bytes) -> object:
    if len(text) > MOST_BYTES:
        raise StepRefusedError(f"the message has {len(text):,} bytes; at most {MOST_BYTES:,} are read")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as failure:
        shown = text[:40].decode("utf-8", "replace")
        raise StepRefusedError(f"{shown!r} is no JSON: {failure}") from None


def _step(value: object, form: StepForm) -> FeedStep:
    if not isinstance(value, Mapping):
        raise StepRefusedError('a step must be a JSON object, as {"sequence": 1, "observation": [0.5]}')
    columns = form.columns
    if "observation" in value or not columns or not (set(value) - _KEYS):
        unknown = sorted(set(value) - _KEYS)
        if unknown:
            raise StepRefusedError(f"{unknown[0]!r} is no key of a step; its keys are {', '.join(sorted(_KEYS))}")
        return FeedStep(value.get("observation"), value.get("reward"), value.get("sequence"), value.get("at"))
    return _row(value, form)


def _row(row: Mapping[str, Any], form: StepForm) -> FeedStep:
    """A row of the mapping's columns; without any of the observation it is a late reward."""
    reward = form.reward_of(row)
    at = row.get(form.time_column) if form.time_column is not None else None
    return FeedStep(
        row if any(name in row for name in form.columns) else None,
        row.get("reward") if reward is None else reward,
        row.get("sequence"),
        row.get("at") if at is None else at,
    )
