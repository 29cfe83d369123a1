"""The steps of a log: rows in, rounds of L slots out."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from cospan.client.environment.observation_parts import MOST_PARTS
from cospan.client.environment.plain_values import SavedState, packed, unpacked
from cospan.client.environment.rollout import checked_features
from cospan.client.logs.mapping import LogMapping
from cospan.client.logs.rows import RowReader, Rows
from cospan.client.logs.tables.batch import Table, TableError
from cospan.client.step_source import AT_END, SourceInterruptedError, SourceWarning
from cospan.core.learning.learner_state import Trajectory
from cospan.wire.errors import WorkloadBehaviourError

POLL_SECONDS = 0.5
"""How often a log that is followed is looked at."""
_SKIPPED_AT_ONCE = 4096


class LogSource:
    """The steps of one table, from its first row to its last; see `StepSource`.

    Attributes:
        steps: transitions given so far.
        reward_sum: the sum of their rewards.
    """

    def __init__(
        self,
        mapping: LogMapping,
        table: Table,
        name: str,
        *,
        follow: bool = False,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Nothing is read yet.

        Args:
            mapping: of the table.
            table: the log.
            name: of the agent, for messages.
            follow: whether the table may grow: `advance` then waits for steps, and the source is never at its end.
            poll_seconds: how often it is looked at then.
        """
        self._mapping, self._table, self._name = mapping, table, name
        self._follow, self._poll = follow, poll_seconds
        self._stopped = threading.Event()
        self._told_end = False
        self.steps, self.reward_sum = 0, 0.0
        self._start_over()

    def _start_over(self) -> None:
        reader = RowReader(self._mapping, self._table, self._wait if self._follow else None)
        self._slots, self._given = _Slots(reader), _Given()

    def _wait(self) -> bool:
        if self._stopped.wait(self._poll):
            raise SourceInterruptedError(f"{self._name} was stopped while it waited for its log to grow")
        return True

    @property
    def at_end(self) -> bool:
        """Whether all transitions have been given."""
        return not self._follow and self._slots.is_used_up

    @property
    def has_backlog(self) -> bool:
        """Whether it has steps that need not be waited for: then an agent that has missed rounds takes theirs."""
        return not self._follow and not self._slots.is_used_up

    def advance(self, steps: int) -> Trajectory:
        """The next L slots; see `StepSource`.

        Raises:
            SourceInterruptedError: it was interrupted while it waited.
            WorkloadBehaviourError: the log cannot be read, has no row, or features broke their contract.
        """
        taken = self._taken(steps)
        features = checked_features(self._mapping.features, taken.observations, self._name)
        self._given.add(taken)
        self.steps += int(taken.is_transition.sum())
        for reward in taken.rewards[taken.is_transition].tolist():
            self.reward_sum += reward
        known = None if taken.is_transition.all() else taken.is_transition
        return Trajectory(features, taken.rewards, known, parts=taken.observations if self.part_names else None)

    @property
    def part_names(self) -> tuple[str, ...]:
        """The columns of the observation, and so of `Trajectory.parts`; none where there are many."""
        names = self._mapping.observation
        return names if len(names) <= MOST_PARTS else ()

    def _taken(self, steps: int) -> "_Taken":
        try:
            return self._slots.take(steps)
        except TableError as failure:
            raise WorkloadBehaviourError(f"the log of {self._name} ends here: {failure}") from failure

    def take_warnings(self) -> list[SourceWarning]:
        """That it is at its end, once."""
        if self._told_end or not self.at_end:
            return []
        self._told_end = True
        text = f"{self._name} has learnt all of its log, {self.steps:,} transitions; it stays for the basis"
        return [SourceWarning(AT_END, text)]

    def interrupt(self) -> None:
        """Ends the wait for a log to grow."""
        self._stopped.set()

    def close(self) -> None:
        """Closes the file."""
        self._slots.close()

    def saved(self) -> SavedState | None:
        """How far it has come, and a digest of what it has given."""
        return packed({"slots": self._given.slots, "digest": self._given.digest}) if self._given.slots else None

    def go_on(self, steps: int, reward_sum: float, saved: SavedState | None) -> str:
        """Continues behind the slots that were given, which are read again and compared.

        Raises:
            WorkloadBehaviourError: the log is not the one of which it has learnt; or it was not saved how far it
                had come, so that rows would count twice.
        """
        if saved is None:
            if steps:
                raise WorkloadBehaviourError(
                    f"the file of {self._name} does not say how far its log has been read, so rows would count "
                    "twice; begin with a new file"
                )
            return ""
        self.close()
        self._start_over()
        state = unpacked(*saved)
        slots = int(state["slots"])
        while self._given.slots < slots and not self._slots.is_used_up:
            self._given.add(self._taken(min(_SKIPPED_AT_ONCE, slots - self._given.slots)))
        if self._given.digest != state["digest"]:
            what = "has shrunk" if self._given.slots < slots else "has changed"
            raise WorkloadBehaviourError(
                f"the log {self._table.name} {what} since {self._name} learnt {slots:,} of its steps; a log may "
                "only grow at its end: restore it, or learn it again with a new file"
            )
        self.steps, self.reward_sum = steps, reward_sum
        return ""


@dataclass(frozen=True, eq=False, slots=True)
class _Taken:
    """L slots.

    Attributes:
        observations: of L + 1 rows; behind the end of the log its last one again.
        is_transition: of each slot.
        rewards: of each slot, 0 at cuts.
        real: how many of the slots are of the log, and not behind its end.
    """

    observations: Float[np.ndarray, "L1 k"]
    is_transition: Bool[np.ndarray, " L"]
    rewards: Float[np.ndarray, " L"]
    real: int


class _Given:
    """How many slots have been given, and a digest of them that does not depend on the length of the rounds."""

    def __init__(self) -> None:
        self.slots = 0
        self._rows, self._rewards = hashlib.sha256(), hashlib.sha256()

    def add(self, taken: _Taken) -> None:
        begin = 0 if not self.slots else 1
        self._rows.update(taken.observations[begin : taken.real + 1].tobytes())
        self._rewards.update(taken.rewards[: taken.real].tobytes())
        self.slots += taken.real

    @property
    def digest(self) -> str:
        return hashlib.sha256(self._rows.digest() + self._rewards.digest()).hexdigest()


class _Slots:
    """The rows of a reader as slots. Rows without predecessor and successor are passed over."""

    def __init__(self, reader: RowReader) -> None:
        self._batches: Iterator[Rows] = iter(reader)
        self._parts: list[Rows] = []
        self._rows = 0
        self._tail: Rows | None = None
        self._ended = False

    def close(self) -> None:
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()

    @property
    def is_used_up(self) -> bool:
        """Whether no slot is left; it reads on where it does not know."""
        while self._rows < 2 and not self._ended:
            self._read()
        return self._rows < 2

    def take(self, steps: int) -> _Taken:
        """The next L slots.

        Raises:
            TableError: the table cannot be read, or has no row that is known.
        """
        while self._rows < steps + 1 and not self._ended:
            self._read()
        if not self._rows:
            raise TableError("it has no two rows that follow one another; see `cospan doctor --logs`")
        whole = self._parts[0] if len(self._parts) == 1 else _joined(self._parts)
        used = min(steps + 1, self._rows)
        observations, follows, arrivals = whole.observations[:used], whole.follows[:used], whole.arrivals[:used]
        rest = _part(whole, slice(used - 1, None))
        self._parts, self._rows = [rest], len(rest.numbers)
        is_transition, rewards = np.zeros(steps, dtype=np.bool_), np.zeros(steps)
        is_transition[: used - 1], rewards[: used - 1] = follows[1:], arrivals[1:]
        if used <= steps:
            observations = np.concatenate([observations, np.repeat(observations[-1:], steps + 1 - used, axis=0)])
        return _Taken(observations, is_transition, rewards, used - 1)

    def _read(self) -> None:
        rows = next(self._batches, None)
        if rows is None:
            self._ended = True
            return
        # Its successor decides whether a row without a predecessor counts; so it waits for the next batch.
        if self._tail is not None:
            rows = _joined([self._tail, rows])
        last = len(rows.numbers) - 1
        keep = rows.follows.copy()
        keep[:-1] |= rows.follows[1:]
        self._tail = None if keep[last] else _part(rows, slice(last, None))
        if keep.any():
            self._parts.append(rows if keep.all() else _part(rows, keep))
            self._rows += int(keep.sum())


def _part(rows: Rows, places: slice | Bool[np.ndarray, " n"]) -> Rows:
    return Rows(
        rows.observations[places], rows.follows[places], rows.arrivals[places], rows.numbers[places], rows.file
    )


def _joined(parts: list[Rows]) -> Rows:
    return Rows(
        np.concatenate([each.observations for each in parts]),
        np.concatenate([each.follows for each in parts]),
        np.concatenate([each.arrivals for each in parts]),
        np.concatenate([each.numbers for each in parts]),
        parts[-1].file,
    )
