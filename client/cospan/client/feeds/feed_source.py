"""The steps of a feed as rounds of L slots; the `StepSource` of a control loop that runs elsewhere.

The same rows give the slots that a log of them gives: see `cospan.client.logs.log_source`.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from cospan.client.environment.observation_parts import exogenous_of
from cospan.client.environment.plain_values import SavedState, packed, unpacked
from cospan.client.environment.rollout import checked_features
from cospan.client.feeds.backlog import StoredStep
from cospan.client.feeds.feed import Feed
from cospan.client.step_source import AT_END, SourceInterruptedError, SourceWarning
from cospan.client.workload import Exogenous, FeatureMap
from cospan.core.learning.learner_state import Trajectory
from cospan.wire.errors import WorkloadBehaviourError

_SILENCE_SECONDS = 10.0
"""How often a feed is looked at that may be silent."""


@dataclass(frozen=True, eq=False, slots=True)
class _Row:
    """A step with a predecessor or a successor: one end of a slot.

    Attributes:
        sequence: of the step.
        observation: k numbers.
        follows: whether the slot before it is a transition.
        arrival: the reward of that slot; 0 where it is a cut.
    """

    sequence: int
    observation: Float[np.ndarray, " k"]
    follows: bool
    arrival: float


class FeedSource:
    """The steps of a feed, from the oldest that is held; see `StepSource`.

    Attributes:
        steps: transitions given so far.
        reward_sum: the sum of their rewards.
    """

    def __init__(
        self,
        feed: Feed,
        features: FeatureMap,
        exogenous: Exogenous | None = None,
        on_silence: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Nothing is given yet.

        Args:
            feed: of the agent.
            features: φ.
            exogenous: the parts of an observation that no action changes.
            on_silence: called by `advance`, now and then, with the seconds for which a step has not come that is
                overdue; with 0 when steps come again, and at first.
        """
        self._feed, self._features, self._exogenous = feed, features, exogenous
        self._on_silence = on_silence
        self._silent: bool | None = None
        self._stopped = threading.Event()
        self.steps, self.reward_sum = 0, 0.0
        self._rows: list[_Row] = []
        self._last: StoredStep | None = None
        """The newest step that was looked at; the slot behind it is not settled yet."""
        self._last_kept = False
        """Whether it is one of the rows."""
        self._told_end = self._begun = False
        self._warnings = (
            [
                SourceWarning(
                    "feed",
                    f"{feed.name} begins with the oldest step of its backlog; those before were learnt by a file "
                    "that this run does not continue",
                )
            ]
            if feed.has_given_up_steps
            else []
        )

    # What is given ---------------------------------------------------------------------------------------------

    @property
    def at_end(self) -> bool:
        """Whether no more will come, and all has been given."""
        if not self._feed.is_complete:
            return False
        self._look()
        return len(self._rows) < 2

    @property
    def anchor(self) -> int | None:
        """The number of the first step of the next round; None before the first round."""
        return self._rows[0].sequence if self._rows and self._begun else None

    def advance(self, steps: int) -> Trajectory:
        """The next L slots; waits until they have come.

        Raises:
            SourceInterruptedError: it was interrupted while it waited.
            WorkloadBehaviourError: the feed has ended without two steps that follow one another.
            BacklogError: the backlog cannot be read.
        """
        self._await(steps + 1)
        if not self._rows:
            raise WorkloadBehaviourError(
                f"the feed of {self._feed.name} has ended without two steps that follow one another; see whether "
                "its sequences are consecutive, and its times one step apart"
            )
        used, self._rows = self._rows[: steps + 1], self._rows[min(steps, len(self._rows) - 1) :]
        self._begun = True
        real = len(used) - 1
        observations = np.stack([each.observation for each in used] + [used[-1].observation] * (steps - real))
        is_transition, rewards = np.zeros(steps, dtype=np.bool_), np.zeros(steps)
        is_transition[:real] = [each.follows for each in used[1:]]
        rewards[:real] = [each.arrival for each in used[1:]]
        restored = self._feed.form.restored(observations)
        trajectory = Trajectory(
            checked_features(self._features, restored, self._feed.name),
            rewards,
            None if is_transition.all() else is_transition,
            parts=self._feed.form.parts(observations),
            exogenous=None if self._exogenous is None else exogenous_of(self._exogenous, restored),
        )
        self.steps += int(is_transition.sum())
        for reward in rewards[is_transition].tolist():
            self.reward_sum += reward
        return trajectory

    @property
    def part_names(self) -> tuple[str, ...]:
        """What the columns of `Trajectory.parts` are called."""
        return self._feed.form.part_names

    def _await(self, rows: int) -> None:
        while True:
            # Before it looks: what is accepted meanwhile ends the wait.
            seen, complete = self._feed.version(), self._feed.is_complete
            self._look()
            if len(self._rows) >= rows or complete:
                self._tell_silence(0.0)
                return
            if self._stopped.is_set():
                raise SourceInterruptedError(f"{self._feed.name} was stopped while it waited for steps")
            self._tell_silence(self._feed.silence())
            self._feed.wait(seen, self._stopped.is_set, _SILENCE_SECONDS)

    def _tell_silence(self, seconds: float) -> None:
        if seconds or self._silent is not False:
            self._silent = seconds > 0.0
            self._on_silence(seconds)

    def _look(self) -> None:
        """Takes in all steps whose slots are settled."""
        while True:
            first = 0 if self._last is None else self._last.sequence
            steps, settled = self._feed.settled_from(first)
            if self._last is None and steps:
                self._last = steps[0]
            pairs = settled - 1 if self._feed.form.reward_at_next else settled
            pairs = min(pairs, len(steps) - 1)
            for before, after in pairwise(steps[: max(pairs, 0) + 1]):
                self._settle(before, after)
            if pairs <= 0:
                return

    def _settle(self, before: StoredStep, after: StoredStep) -> None:
        """The slot between two steps is known. As in a log, a step at no end of a transition is passed over."""
        reward = after.reward if self._feed.form.reward_at_next else before.reward
        joined = after.follows and reward is not None and bool(np.isfinite(reward))
        if joined and reward is not None:
            if not self._last_kept:
                self._rows.append(_Row(before.sequence, before.observation, False, 0.0))
            self._rows.append(_Row(after.sequence, after.observation, True, reward))
        self._last, self._last_kept = after, joined

    # Ends, restarts ----------------------------------------------------------------------------------------------

    def take_warnings(self) -> list[SourceWarning]:
        """Since the last call; also that it is at its end, once."""
        found, self._warnings = self._warnings, []
        if not self._told_end and self.at_end:
            self._told_end = True
            text = (
                f"{self._feed.name} has learnt all of its feed, {self.steps:,} transitions; it stays for the basis"
            )
            found.append(SourceWarning(AT_END, text))
        return found

    def interrupt(self) -> None:
        """Ends a wait for steps."""
        self._stopped.set()
        self._feed.wake()

    def close(self) -> None:
        """Nothing: the feed is its agent's."""

    def saved(self) -> SavedState | None:
        """The number of the step with which the next round begins."""
        if self.anchor is None:
            return None
        return packed({"feed": self._feed.backlog_id, "sequence": self.anchor})

    def go_on(self, steps: int, reward_sum: float, saved: SavedState | None) -> str:
        """Continues with the step at which `saved` was asked.

        Raises:
            WorkloadBehaviourError: the backlog is not the one that was learnt from, or lacks the step.
        """
        self._warnings = []
        if saved is None and not steps:
            return ""
        if self._feed.path is None:
            self.steps, self.reward_sum = steps, reward_sum
            return ""
        state = {} if saved is None else unpacked(*saved)
        place = self._feed.path
        if state.get("feed") != self._feed.backlog_id:
            raise WorkloadBehaviourError(
                f"{place} is not the backlog that {self._feed.name} has learnt from, so steps would be lost or "
                "count twice; put that one back, or begin with a new --output"
            )
        first, _ = self._feed.settled_from(int(state["sequence"]))
        if not first or first[0].sequence != state["sequence"]:
            raise WorkloadBehaviourError(
                f"{place} does not hold step {state['sequence']}, with which {self._feed.name} continues; put back "
                "the backlog that belongs to its file, or begin with a new --output"
            )
        begin = first[0]
        self._rows = [_Row(begin.sequence, begin.observation, False, 0.0)]
        self._last, self._last_kept, self._begun = begin, True, True
        self.steps, self.reward_sum = steps, reward_sum
        return ""
