"""What a control loop tells the agent: steps in, and what became of each.

**Steps.** A step has a number, its *sequence*, an observation and a reward. Two steps with consecutive numbers, one
time step apart where times are told, are a transition; anything else is a gap, and cuts the chain.

**Accepted** means that the step is in the backlog, and durable where the backlog is a file. A step that is told
again counts once, so a sender that has had no answer repeats itself. Steps come in order: one that comes after a
later one is refused, for the learner may have passed its place.

**Late rewards.** A step without a reward waits for it until more than `reward_delay` later steps have come. Then
its slot is a cut, and the reward is refused.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.environment.rollout import checked_features
from cospan.client.feeds.backlog import Backlog, StoredStep
from cospan.client.feeds.errors import BacklogFullError, FeedClosedError, FeedError, StepRefusedError
from cospan.client.feeds.step_forms import StepForm, Time
from cospan.client.feeds.told import MOST_SEQUENCE, FeedSettings, FeedStatus, FeedStep, Outcome
from cospan.client.workload import FeatureMap
from cospan.wire.errors import WorkloadBehaviourError

_READ_AT_ONCE = 4096
_SILENT_STEPS = 3.0
_SHORTEST_SILENCE = 60.0
_UNKNOWN_STEP_SECONDS = 1200.0
"""Taken for the time step as long as nothing is known of it: an hour of silence is too long."""


class Feed:
    """Takes steps in, from any thread, and gives them to the learner."""

    def __init__(
        self, name: str, form: StepForm, features: FeatureMap, settings: FeedSettings, path: Path | None
    ) -> None:
        """Opens the backlog.

        Args:
            name: of the agent.
            form: of its observations.
            features: φ; an observation that it cannot take is refused.
            settings: limits.
            path: of the backlog; None for one in memory.

        Raises:
            BacklogError: the file cannot be used.
        """
        self.name, self.form = name, form
        self.features, self._settings = features, settings
        self._backlog = Backlog(path, owner=name, form=form.text)
        self._changed = threading.Condition()
        self._closed = ""
        self._complete = False
        self._accepted = self._repeated = self._refused = self._version = 0
        self._since = time.monotonic()
        self._usual: float | None = None
        self._numbered = False
        """Whether this process has given a number; the first one leaves a gap behind what was there before."""
        self._id = self._backlog.id
        self._newest = self._backlog.newest()
        self._saved, self._frozen = int(self._backlog.fact("saved", -1)), int(self._backlog.fact("frozen", -1))
        self._held = self._backlog.count_after(self._saved)

    @property
    def path(self) -> Path | None:
        """Of the backlog's file; None in memory."""
        return self._backlog.path

    @property
    def next_sequence(self) -> int:
        """The number behind the newest step."""
        with self._changed:
            return 0 if self._newest is None else self._newest.sequence + 1

    def status(self) -> FeedStatus:
        """Where it stands now."""
        with self._changed:
            return FeedStatus(
                None if self._newest is None else self._newest.sequence,
                self._held,
                self._accepted,
                self._repeated,
                self._refused,
                time.monotonic() - self._since,
                self._usual,
            )

    # Steps in ----------------------------------------------------------------------------------------------------

    def observe(
        self, observation: Any, reward: float | None = None, *, sequence: int | None = None, at: Any = None
    ) -> Outcome:
        """Accepts one step; see `Agent.observe`."""
        (found,) = self.observe_all([FeedStep(observation, reward, sequence, at)], numbering=True)
        if isinstance(found, FeedError):
            raise found
        return found

    def observe_all(self, steps: Sequence[FeedStep], *, numbering: bool = False) -> list[Outcome | FeedError]:
        """Accepts steps, in order and durable together; what became of each.

        Args:
            steps: as they were told.
            numbering: whether a step without number and time gets the next number.

        Raises:
            BacklogError: the disk is full or broken; none of them is accepted.
            FeedClosedError: the agent has ended.
        """
        with self._changed:
            if self._closed:
                raise FeedClosedError(self._closed)
            found: list[Outcome | FeedError] = []
            before = self._newest, self._held, self._numbered
            try:
                with self._backlog.changing():
                    for step in steps:
                        try:
                            found.append(self._accept(step, numbering=numbering))
                        except (StepRefusedError, BacklogFullError) as refusal:
                            found.append(refusal)
            except BaseException:
                self._newest, self._held, self._numbered = before
                raise
            self._count(found, self._held - before[1])
            return found

    def count_refused(self, steps: int) -> None:
        """Counts steps that could not be read, and so were never told to this feed."""
        with self._changed:
            self._refused += steps

    def _count(self, found: Sequence[Outcome | FeedError], steps: int) -> None:
        self._repeated += sum(each in (Outcome.REPEATED, Outcome.PAST) for each in found)
        self._refused += sum(isinstance(each, StepRefusedError) for each in found)
        if steps:
            now = time.monotonic()
            took = (now - self._since) / steps
            if self._accepted:
                usual = took if self._usual is None else self._usual
                # Many at once, as after an outage, say little of how they come.
                self._usual = usual + (0.5 if took > usual else 0.01) * (took - usual)
            self._accepted, self._since = self._accepted + steps, now
        if any(each is Outcome.NEW for each in found):
            self._version += 1
            self._changed.notify_all()

    def _accept(self, step: FeedStep, *, numbering: bool) -> Outcome:
        at = self.form.time_of(step.at)
        sequence = self._sequence(step, at, numbering=numbering)
        reward = _checked_reward(step.reward, sequence)
        if step.observation is None:
            if reward is None:
                raise StepRefusedError(f"step {sequence} has neither observation nor reward; send one of them")
            return self._late_reward(sequence, reward)
        newest = self._newest
        if newest is not None and sequence <= newest.sequence:
            return self._again(sequence, self._numbers(step, sequence, at), reward)
        if self._held >= self._settings.limit:
            raise BacklogFullError(
                f"the backlog of {self.name} holds {self._held:,} steps that no file includes yet, its limit; step "
                f"{sequence} is not accepted: send it again later"
            )
        stored = StoredStep(sequence, at, self._numbers(step, sequence, at), reward, self._follows(sequence, at))
        self._backlog.add(stored)
        self._newest, self._held = stored, self._held + 1
        return Outcome.NEW

    def _sequence(self, step: FeedStep, at: Time | None, *, numbering: bool) -> int:
        """The step's number: as told, from its time, or the next one."""
        given = step.sequence
        if given is not None:
            if (
                isinstance(given, bool)
                or not isinstance(given, int | np.integer)
                or not 0 <= given <= MOST_SEQUENCE
            ):
                raise StepRefusedError(f"the sequence is {given!r}; it must be a whole number, 0 or more")
            kind, found = "numbers", int(given)
        elif at is not None and self.form.step is not None:
            size = self.form.step
            kind = "times"
            found = (2 * at + int(size)) // (2 * int(size)) if isinstance(at, int) else round(at / size)
            if not 0 <= found <= MOST_SEQUENCE:
                raise StepRefusedError(f"the time {step.at!r} is before 1970 or too far from now; correct it")
        elif numbering:
            kind, found = "numbers", self._next_number(late=step.observation is None)
        else:
            raise StepRefusedError(
                "the step has no sequence, and no time of a known time step; without one a repeated step would "
                "count twice: send `sequence`"
            )
        known = self._backlog.fact("numbering", kind)
        if known != kind:
            raise StepRefusedError(
                f"the step is numbered by {'sequence' if kind == 'numbers' else 'time'}, and those before are by "
                f"{'time' if kind == 'numbers' else 'sequence'}; keep to one of them"
            )
        if self._newest is None:
            self._backlog.note("numbering", kind)
        return found

    def _next_number(self, *, late: bool) -> int:
        if self._newest is None:
            self._numbered = True
            return 0
        if late:
            raise StepRefusedError("a reward alone must name its step; send its sequence")
        gap = 1 if self._numbered else 2
        self._numbered = True
        return self._newest.sequence + gap

    def _numbers(self, step: FeedStep, sequence: int, at: Time | None) -> Float[np.ndarray, " k"]:
        """The observation, after the feature map has taken it: what is accepted can be learnt from."""
        try:
            numbers = self.form.numbers(step.observation, at)
            checked_features(self.features, self.form.restored(numbers[None]), self.name)
        except (StepRefusedError, WorkloadBehaviourError) as failure:
            raise StepRefusedError(f"step {sequence} of {self.name} is refused: {failure}") from None
        return numbers

    def _follows(self, sequence: int, at: Time | None) -> bool:
        newest, step = self._newest, self.form.step
        if newest is None or sequence != newest.sequence + 1:
            return False
        if at is None or newest.at is None:
            # A time that is missing on one side alone says nothing of the interval.
            return (at is None) == (newest.at is None)
        if isinstance(at, int) != isinstance(newest.at, int):
            return False
        interval = float(at - newest.at)
        return interval > 0 if step is None else abs(interval - step) <= self.form.tolerance * step

    def _again(self, sequence: int, numbers: Float[np.ndarray, " k"], reward: float | None) -> Outcome:
        """A step whose number has been passed."""
        assert self._newest is not None
        known = self._backlog.step(sequence)
        if known is None:
            oldest = self._backlog.oldest()
            if oldest is None or sequence < oldest:
                return Outcome.PAST
            raise StepRefusedError(
                f"step {sequence} of {self.name} comes after step {self._newest.sequence}, so its place is a gap "
                "by now; send steps in order"
            )
        if not np.array_equal(known.observation, numbers):
            raise StepRefusedError(
                f"step {sequence} of {self.name} was accepted before with another observation; give a new step its "
                f"own number, the next is {self._newest.sequence + 1}"
            )
        if reward is None or _same(known.reward, reward):
            return Outcome.REPEATED
        return self._late_reward(sequence, reward)

    def _late_reward(self, sequence: int, reward: float) -> Outcome:
        known, newest = self._backlog.step(sequence), self._newest
        if newest is None or (known is None and sequence > newest.sequence):
            raise StepRefusedError(
                f"the reward {reward:g} is of step {sequence} of {self.name}, whose observation has not come; send "
                "the observation first"
            )
        if known is None:
            oldest = self._backlog.oldest()
            if oldest is None or sequence < oldest:
                return Outcome.PAST
            raise StepRefusedError(f"the reward {reward:g} is of step {sequence} of {self.name}, which was skipped")
        if known.reward is not None:
            if _same(known.reward, reward):
                return Outcome.REPEATED
            raise StepRefusedError(
                f"step {sequence} of {self.name} has the reward {known.reward:g}, and now {reward:g} is told; a "
                "reward cannot be changed"
            )
        if self._is_settled(sequence):
            raise StepRefusedError(
                f"the reward {reward:g} of step {sequence} of {self.name} comes {newest.sequence - sequence} steps "
                f"late, and was awaited for {self._settings.reward_delay}; raise --reward-delay"
            )
        self._backlog.set_reward(sequence, reward)
        return Outcome.NEW

    def _is_settled(self, sequence: int) -> bool:
        """Whether a reward of this step is awaited no more; it never is again then."""
        assert self._newest is not None
        return self._newest.sequence > sequence + self._settings.reward_delay or sequence <= self._frozen

    # Steps out; called by the learning thread ---------------------------------------------------------------------

    def settled_from(self, first: int) -> tuple[list[StoredStep], int]:
        """Steps from a number on, and how many of them are settled: their rewards are known, or come no more.

        Raises:
            BacklogError: the file cannot be read.
        """
        with self._changed:
            if self._closed:
                return [], 0
            steps = self._backlog.read(first, _READ_AT_ONCE)
            unsettled = (
                place
                for place, each in enumerate(steps)
                if each.reward is None and not self._is_settled(each.sequence)
            )
            return steps, next(unsettled, len(steps))

    def version(self) -> int:
        """A number that changes with what is accepted."""
        with self._changed:
            return self._version

    def wait(self, seen: int, stopped: Callable[[], bool], seconds: float | None = None) -> None:
        """Waits until more is accepted than at version `seen`, all is, or `stopped` holds; at most `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != seen or bool(self._closed) or stopped(), seconds)

    def silence(self) -> float:
        """Seconds since the last step, if they are more than usual; else 0."""
        with self._changed:
            seconds = time.monotonic() - self._since
            return seconds if seconds > self._usual_silence() else 0.0

    def _usual_silence(self) -> float:
        """Three steps, as their time step says or else as they have come; a minute or more."""
        step = self.form.step_seconds
        if step is None:
            step = self._usual if self._usual is not None else _UNKNOWN_STEP_SECONDS
        return max(_SHORTEST_SILENCE, _SILENT_STEPS * step)

    def wait_for_room(self, stopped: Callable[[], bool]) -> None:
        """Waits until the backlog takes a step again, the agent has ended, or `stopped` holds."""
        with self._changed:
            self._changed.wait_for(lambda: self._held < self._settings.limit or bool(self._closed) or stopped())

    def wake(self) -> None:
        """Has `wait` ask again whether it is to stop; from any thread."""
        with self._changed:
            self._changed.notify_all()

    @property
    def is_complete(self) -> bool:
        """Whether no step will come any more."""
        return self._complete

    def complete(self) -> None:
        """No step will come any more, as at the end of a pipe; rewards that have not come never will.

        Raises:
            BacklogError: the backlog cannot be written.
        """
        with self._changed:
            if self._closed or self._complete:
                return
            if self._newest is not None:
                with self._backlog.changing():
                    self._backlog.note("frozen", self._newest.sequence)
                self._frozen = self._newest.sequence
            self._complete = True
            self._version += 1
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether the agent has ended."""
        return bool(self._closed)

    @property
    def backlog_id(self) -> str:
        """Of the backlog: a text that no other one has."""
        return self._id

    @property
    def has_given_up_steps(self) -> bool:
        """Whether a file has once included steps of this backlog."""
        return self._saved >= 0

    def release(self, sequence: int) -> None:
        """A file includes all steps before this one, which nothing will ask for again; from any thread.

        Raises:
            BacklogError: the backlog cannot be written.
        """
        with self._changed:
            if self._closed or sequence <= self._saved:
                return
            with self._backlog.changing():
                self._backlog.note("saved", sequence)
                self._backlog.forget_before(sequence)
            self._saved, self._held = sequence, self._backlog.count_after(sequence)
            self._changed.notify_all()

    def close(self, why: str = "") -> None:
        """Accepts no more; can be called again."""
        with self._changed:
            if not self._closed:
                self._closed = why or f"{self.name} has ended, and takes no more steps; start it again"
                self._backlog.close()
            self._changed.notify_all()


def _checked_reward(reward: Any, sequence: int) -> float | None:
    if reward is None:
        return None
    try:
        if isinstance(reward, bool):
            raise TypeError
        number = float(reward)
    except (TypeError, ValueError, OverflowError):
        raise StepRefusedError(f"the reward of step {sequence} is {reward!r}; it must be a number") from None
    if np.isinf(number):
        raise StepRefusedError(
            f"the reward of step {sequence} is {number}; it must be finite, or nan where unknown"
        )
    return number


def _same(one: float | None, other: float) -> bool:
    return one is not None and (one == other or (math.isnan(one) and math.isnan(other)))
