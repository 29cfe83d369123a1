"""An agent's own file: read at the start of a run, written while it learns and at the end.

A thread of its own writes it. A fleet waits in every round for its slowest agent, so if learning waited for writes,
the writes of each agent would delay all others.
"""

import contextlib
import glob
import itertools
import logging
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from cospan.client.files.agent_result import AgentResult
from cospan.client.files.kept_gradients import KEPT, kept_values, loaded_kept
from cospan.client.files.result_file import OWNED, contents, load_result, owner, resume
from cospan.client.learning.learner_thread import LearnerThread
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.session.machine import KeptGradient
from cospan.client.session.settings import CHECKPOINT_SECONDS
from cospan.core.specification import RunSpecification
from cospan.wire.errors import BudgetSpentError, RunFileError
from cospan.wire.files.npz import save_npz
from cospan.wire.files.safe_files import NotAFileError, check_regular

log = logging.getLogger(__name__)

_SHARE = 0.05
"""Largest share of the time that goes into writing: a state of d × d numbers is large."""
_NUMBERS_A_SECOND = 5e7
"""About how many are computed and written where nothing has been written yet."""
_LAST_WRITE_SECONDS = 30.0
"""Longest time that the last write, or one that counts a vector, waits for the one before."""
_MATRICES = 5
"""Of d × d, that posteriors keep of an agent."""
VECTORS = "vectors_sent"
"""With differential privacy: how many vectors the agent has sent, or was about to. The name in a file."""


@runtime_checkable
class StatefulLearner(Protocol):
    """The learner of an agent or a group, as its file sees it."""

    @property
    def name(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def specification(self) -> RunSpecification: ...
    @property
    def rounds(self) -> int: ...
    @property
    def last_round(self) -> int | None: ...


L = TypeVar("L", bound=StatefulLearner)


@dataclass(frozen=True, slots=True)
class FileKind(Generic[L]):
    """What stands in a file.

    Attributes:
        contents: (learner, run id) → the file's arrays, as they are now.
        load: reads the owner of a file; raises RunFileError if it is no such file.
        resume: (learner, path, run id) → the reason why its chains start over, or empty; see `result_file.resume`.
        checkpoint: `contents` during the run, where something is left out then; None where nothing is.
    """

    contents: Callable[[L, str], dict[str, Any]]
    load: Callable[[Path], AgentResult]
    resume: Callable[[L, Path, str], str]
    checkpoint: Callable[[L, str], dict[str, Any]] | None = None


ONE_AGENT: FileKind[SiteLearner] = FileKind(contents, partial(load_result, names=(*OWNED, *KEPT, VECTORS)), resume)


class StateFile(Generic[L]):
    """The file of one learner. The learning thread calls all but `finish`."""

    def __init__(
        self,
        path: Path,
        learner: L,
        kind: FileKind[L],
        *,
        run_id: str,
        every_seconds: float = CHECKPOINT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            path: the file; or a folder, in which it has the agent's name. Links are followed only now: a link to
                the newest run's folder changes when the next run begins.
            learner: the owner.
            kind: the contents.
            run_id: of the run.
            every_seconds: shortest time between two writes; 0 means one at the end.
            clock: monotonic seconds.
        """
        self.path = (path / f"{learner.name}.npz" if path.is_dir() else path).resolve()
        self._learner, self._kind, self._run_id, self._clock = learner, kind, run_id, clock
        self._every = every_seconds
        self._writer: LearnerThread | None = None
        self._writing = False
        self._failing = False
        self._due = clock() + max(every_seconds, _seconds_of_first(learner) / _SHARE)
        self._last: dict[str, Any] | None = None
        self.on_saved: Callable[[int], None] = lambda _: None
        """Called, by any thread, with the round below which all are in a file that allows an exact continuation."""
        self.found_kept: tuple[KeptGradient, ...] = ()
        """The gradients in the file from which the learner continued."""
        self.chain_problem = ""
        """The reason why the chains start over after that."""
        self.found_vectors: int | None = None
        """How many vectors were sent, by the file that was found; None where none was, or it does not say."""
        self.vectors = 0
        """With differential privacy: how many vectors the agent has sent, or is about to."""
        self._is_exact = False

    def take_up(self, *, resuming: bool = True) -> str:
        """Continues from the file if it is of this run and agent; another run's, or a damaged one, is moved aside.

        Args:
            resuming: whether to continue from it; else it is overwritten: the learner continues from another one.

        Returns:
            What was done, in words; empty if there was nothing to do.

        Raises:
            RunFileError: it belongs to another agent of the run, is no regular file, or cannot be moved aside.
        """
        try:
            check_regular(self.path)
        except NotAFileError as failure:  # a device or a pipe must not be renamed, nor replaced by a file
            raise RunFileError(f"{self.path} cannot be used: {failure.strerror}; name another file") from failure
        self._remove_what_was_cut_short()
        if not self.path.exists():
            return ""
        try:
            found = self._kind.load(self.path)
            expected = owner(self._learner.name, self._learner.specification, self._run_id)
            differs = next((name for name, value in expected.items() if found.text(name) != value), "")
            if not differs:
                self.found_vectors = _vectors_in(found)
                return self._resumed(found) if resuming else ""
        except RunFileError as failure:
            return f"{failure}; it starts from nothing, and that file is now {self._moved_aside('damaged')}"
        if differs == "agent_id":
            raise RunFileError(
                f"{self.path} is what {found.text('agent_id')} has learnt in this run; name another file for "
                f"{self._learner.name}"
            )
        return f"{self.path} is of another run; it is now {self._moved_aside(_run_of(found))}"

    def _resumed(self, found: AgentResult) -> str:
        words, self.chain_problem = resumed(self._learner, self._kind, self.path, run_id=self._run_id)
        self.found_kept = loaded_kept(found, self._learner.specification)
        if not self.chain_problem and self._learner.last_round is not None:
            self._is_exact = True
            self.on_saved(self._learner.last_round + 1)
        return words

    def have(self, learner: L) -> None:
        """Another learner replaces the owner, and repeats its rounds from the beginning."""
        self._learner = learner

    def after_round(self, kept: Sequence[KeptGradient] = ()) -> None:
        """Writes the file in the background if it is due; the learner is between two rounds.

        Args:
            kept: the gradients that the coordinator may ask for again.
        """
        if not self._every or self._writing or self._clock() < self._due:
            return
        began = self._clock()
        self._writing = True
        held = self._contents(kept, self._kind.checkpoint)
        self._submit(partial(self._write, held, began))

    def _submit(self, job: Callable[[], object]) -> None:
        """Has the writing thread do something, after what it was asked before."""
        if self._writer is None:
            self._writer = LearnerThread(f"state-of-{self._learner.name}")
        self._writer.submit(job)

    def _contents(
        self, kept: Sequence[KeptGradient], made_by: Callable[[L, str], dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        return (made_by or self._kind.contents)(self._learner, self._run_id) | kept_values(kept)

    def count(self, kept: Sequence[KeptGradient], *, most: int) -> None:
        """Counts one vector more, and returns when that is on the disk; the learner is between two rounds.

        Args:
            kept: as of `after_round`.
            most: vectors that may be sent in all.

        Raises:
            BudgetSpentError: as many have been counted; nothing is changed.
            RunFileError: the file cannot be written. The vector counts as sent, and must not be.
        """
        if self.vectors >= most:
            raise BudgetSpentError(
                f"{self._learner.name} has sent {self.vectors} vectors, and the privacy budget of this run is for "
                f"{most}: it sends no more; what it has learnt is kept"
            )
        self.vectors += 1
        began, held = self._clock(), self._contents(kept, self._kind.checkpoint)
        outcome: queue.SimpleQueue[RunFileError | None] = queue.SimpleQueue()
        # After a write that is under way: that one has the count of before.
        self._submit(lambda: outcome.put(self._write(held, began)))
        try:
            problem = outcome.get(timeout=_LAST_WRITE_SECONDS)
        except queue.Empty:
            problem = RunFileError(f"{self.path} was not written within {_LAST_WRITE_SECONDS:g} s")
        if problem is not None:
            raise problem

    def after_last_round(self, kept: Sequence[KeptGradient] = ()) -> None:
        """Keeps what `finish` will write: an environment is asked in the learning thread alone."""
        if self._learner.rounds:
            self._last = self._contents(kept)

    def finish(self) -> None:
        """Writes the file for the last time; from any thread, when the learning is over.

        Raises:
            RunFileError: it cannot be written.
        """
        if self._writer is not None:
            self._writer.stop()
            self._writer.join(_LAST_WRITE_SECONDS)
        # The environment hangs within a round. A file from which the chain continues exactly stays.
        if self._last is None and self._learner.rounds and not self._is_exact:
            self._last = self._contents(())
        if self._last is not None:
            save_npz(self.path, **self._last, **self._counted())

    def _counted(self) -> dict[str, Any]:
        """The newest count, whatever the state is of that is written with it."""
        return {VECTORS: self.vectors} if self._learner.specification.is_private else {}

    def _write(self, held: dict[str, Any], began: float) -> RunFileError | None:
        """Writes the file; why it could not, or None."""
        problem: RunFileError | None = None
        try:
            save_npz(self.path, **held, **self._counted())
        except Exception as failure:  # of any kind: learning continues, and the earlier file is still there
            if not self._failing:
                log.error("%s; %s learns on without, and tries again", failure, self._learner.name)
            self._failing = True
            problem = failure if isinstance(failure, RunFileError) else RunFileError(f"{self.path}: {failure}")
        else:
            self._failing = False
            if held["chain_state"]:
                self._is_exact = True
                self.on_saved(int(held["last_round"]) + 1)
        ended = self._clock()
        self._due = ended + max(self._every, (ended - began) * (1.0 / _SHARE - 1.0))
        self._writing = False
        return problem

    def _remove_what_was_cut_short(self) -> None:
        for path in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.tmp"):
            with contextlib.suppress(OSError):
                path.unlink()

    def _moved_aside(self, word: str) -> Path:
        """Gives the file another name, one that nothing has yet; returns it."""
        stem, suffix = self.path.stem, self.path.suffix
        names = (f"{stem}.{word}{f'-{number}' if number > 1 else ''}{suffix}" for number in itertools.count(1))
        aside = next(path for path in map(self.path.with_name, names) if not path.exists())
        try:
            self.path.rename(aside)
        except OSError as failure:
            raise RunFileError(
                f"{self.path} is of another run and cannot be renamed: {failure.strerror}; name another file"
            ) from failure
        return aside


def _seconds_of_first(learner: StatefulLearner) -> float:
    """About how long the first write of a large group will take; 0 for one agent: a write of its file tells."""
    numbers = _MATRICES * learner.specification.feature_dim**2
    return (len(learner.names) - 1) * numbers / _NUMBERS_A_SECOND


def resumed(learner: L, kind: FileKind[L], path: Path, *, run_id: str) -> tuple[str, str]:
    """Restores a learner from a file; what was done, and the reason why its chains start over, or nothing.

    Raises:
        RunFileError: see `FileKind.resume`.
    """
    problem = kind.resume(learner, path, run_id)
    words = f"continues from {path}, after {learner.rounds} rounds"
    return (f"{words}; its chain starts over, for {problem}" if problem else words), problem


def counted_in(path: Path | None) -> int | None:
    """How many vectors were sent, by an agent's file; None where there is none, or it does not say."""
    if path is None:
        return None
    return _vectors_in(load_result(path, names=(VECTORS,)))


def _vectors_in(found: AgentResult) -> int | None:
    return found.whole(VECTORS) if VECTORS in found.values else None


def _run_of(found: AgentResult) -> str:
    """The file's run, as a part of a file's name."""
    return "".join(letter for letter in found.text("run_id")[:64] if letter.isalnum() or letter in "-_") or "other"
