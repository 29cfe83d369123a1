"""What a process keeps across restarts, and how it catches up with its run.

Its file holds the learner after some round, and the gradients whose rounds may not be durable. A restarted process
sends those gradients as they are, and repeats the rounds between its file and the open one at the bases that the
coordinator has kept. So its results have the bits of an uninterrupted process.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float

from cospan.client.files.state_file import FileKind, StateFile, StatefulLearner, counted_in, resumed
from cospan.client.learning.site_learner import Warned
from cospan.client.session.machine import KeptGradient, most_kept_rounds
from cospan.client.session.run_checks import Turn, check_basis
from cospan.core.specification import RunSpecification
from cospan.wire.errors import (
    CoordinatorUnavailableError,
    CospanError,
    DrainingError,
    RateLimitedError,
    SessionUnknownError,
)
from cospan.wire.messages import GradientUpload, RecalledRounds, Welcome

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.2


@runtime_checkable
class Learner(StatefulLearner, Protocol):
    """What learns: a round at a time."""

    warnings: list[Warned]

    def learn(
        self,
        round_number: int,
        basis: Float[np.ndarray, "d r"],
        head_covariance: Float[np.ndarray, "r r"] | None = None,
    ) -> GradientUpload:
        """Takes L steps, learns from them at B_t, and W_t where the method has it; what is sent of round t."""
        ...

    def interrupt(self) -> None:
        """Ends a wait for steps that have not been taken yet; from any thread."""
        ...


L = TypeVar("L", bound=Learner)


@runtime_checkable
class RecallTransport(Protocol):
    """A transport that can ask for past rounds."""

    async def recall(self, specification: RunSpecification, token: str, first: int, before: int) -> RecalledRounds:
        """The rounds from `first` on, below `before`, in which the session's agents counted, with their bases.

        Raises:
            CospanError: the coordinator cannot be reached, or does not answer such a question.
        """
        ...


class StoppedError(CospanError):
    """The process is to end while it repeats rounds that its file lacks."""

    reason = "STOPPED"
    remedy = "Start the agent again; it continues from its file."


@dataclass(frozen=True, slots=True)
class StatePolicy:
    """The files that a process continues from and writes.

    Attributes:
        resume_from: a file of the same run and learner to continue from, or None.
        state_file: where to keep what is learnt, or None; see `StateFile`.
        checkpoint_seconds: the shortest time between two writes of that file.
    """

    resume_from: Path | None
    state_file: Path | None
    checkpoint_seconds: float

    @classmethod
    def of(cls, resume_from: Path | str | None, state_file: Path | str | None, seconds: float) -> "StatePolicy":
        """Paths may be texts."""
        return cls(
            None if resume_from is None else Path(resume_from),
            None if state_file is None else Path(state_file),
            seconds,
        )


@dataclass(frozen=True, slots=True)
class LearnerContext:
    """What a `StateKeeper` needs of the session around it; called by the learning thread unless noted.

    Attributes:
        token: gives the token of the session, or None while there is none; called on the event loop.
        durable_round: gives the round below which all are known to be durable.
        is_ending: whether the process is to end.
        saved: called, by any thread, with the round below which all are in the file.
        progress_timeout_seconds: seconds without an answer of the coordinator after which it gives up.
    """

    token: Callable[[], str | None]
    durable_round: Callable[[], int]
    is_ending: Callable[[], bool]
    saved: Callable[[int], None]
    progress_timeout_seconds: float


class StateKeeper(Generic[L]):
    """The learner of one process and its file. The learning thread calls its methods, but for `state_file`'s."""

    def __init__(
        self,
        make: Callable[[int], L],
        kind: FileKind[L],
        keeping: StatePolicy,
        around: LearnerContext,
        *,
        run_id: str,
        first_round: int,
        vectors_before: int = 0,
    ) -> None:
        """Makes the learner, which continues from the file that was named, or else from its own of this run.

        Args:
            make: gives a learner that has learnt nothing and begins in that round.
            kind: the contents of the files.
            keeping: which files.
            around: the session.
            run_id: of the run.
            first_round: that takes its gradient.
            vectors_before: with differential privacy, how many vectors it may have sent before, where no file says.

        Raises:
            RunFileError: it is not possible to continue from a file.
        """
        self.learner = make(first_round)
        self.state_file: StateFile[L] | None = None
        self.notes: list[str] = []
        """Notices for the user."""
        self._make, self._around = make, around
        self._kept: tuple[KeptGradient, ...] = ()
        self._kept_of: tuple[str, ...] = ()
        self.is_exact = True
        """Whether its results have the bits of an uninterrupted process, as far as it knows."""
        self._is_back = False
        self._chain_problem = ""
        if keeping.resume_from is not None:
            self._note(resumed(self.learner, kind, keeping.resume_from, run_id=run_id)[0])
        if keeping.state_file is not None:
            file = StateFile(
                keeping.state_file, self.learner, kind, run_id=run_id, every_seconds=keeping.checkpoint_seconds
            )
            file.on_saved = around.saved
            self._note(file.take_up(resuming=keeping.resume_from is None))
            self._kept, self._kept_of = file.found_kept, self.learner.names
            self._chain_problem = file.chain_problem
            self.state_file = file
            if self.learner.specification.is_private:
                self._note(self._take_up_count(keeping.resume_from, vectors_before))

    def _take_up_count(self, other: Path | None, vectors_before: int) -> str:
        """Begins the count of the vectors where the files left it; what holds now, in words."""
        file, spec = self.state_file, self.learner.specification
        assert file is not None
        found = [count for count in (file.found_vectors, counted_in(other)) if count is not None]
        file.vectors = max(found, default=vectors_before)
        where = "by its file" if found else "at most, for it has no file of this run"
        before = f", of which {file.vectors} were sent before {where}" if file.vectors else ""
        return (
            f"differential privacy: ε = {spec.dp_epsilon:g}, δ = {spec.dp_delta:g} for all of its "
            f"{spec.dp_vectors} vectors{before}"
        )

    def count_vector(self) -> None:
        """Counts a vector in the file, before it is sent.

        Raises:
            BudgetSpentError: all have been sent.
            RunFileError: the file cannot be written.
        """
        assert self.state_file is not None, "without a file no run with differential privacy is joined"
        self.state_file.count(self._sound(), most=self.learner.specification.dp_vectors)

    def _note(self, words: str) -> None:
        if words:
            self.notes.append(words)

    def upload_of(
        self,
        round_number: int,
        basis: Float[np.ndarray, "d r"],
        head_covariance: Float[np.ndarray, "r r"] | None = None,
    ) -> GradientUpload | None:
        """The gradient that was learnt before at this basis, bit for bit; None where there is none."""
        for each in self._sound():
            if each.is_of(round_number, basis, head_covariance):
                return each.upload
        return None

    def learn(
        self,
        round_number: int,
        basis: Float[np.ndarray, "d r"],
        head_covariance: Float[np.ndarray, "r r"] | None = None,
    ) -> GradientUpload:
        """Learns a round, and keeps its gradient until it is on the coordinator's disk."""
        upload = self.learner.learn(round_number, basis, head_covariance)
        if self.state_file is None:
            return upload
        durable = min(self._around.durable_round(), round_number)
        learnt = KeptGradient(upload, basis, head_covariance)
        kept = (*(each for each in self._sound() if each.upload.round >= durable), learnt)
        self._kept = kept[-most_kept_rounds(self.learner.specification) :]
        return upload

    def _sound(self) -> tuple[KeptGradient, ...]:
        """The kept gradients; none if the group has dropped a member since, because they sum over that member."""
        if self._kept_of != self.learner.names:
            self._kept, self._kept_of = (), self.learner.names
        return self._kept

    def save_now_and_then(self) -> None:
        """Writes the file in the background if it is due; between two rounds."""
        if self.state_file is not None:
            self.state_file.after_round(self._sound())

    def after_last_round(self) -> None:
        """Keeps what the file will hold at the end; an environment is asked in the learning thread alone."""
        if self.state_file is not None:
            self.state_file.after_last_round(self._sound())

    # Catching up ------------------------------------------------------------------------------------------------

    def come_back(self, round_number: int, transport: object, loop: asyncio.AbstractEventLoop) -> str:
        """Repeats the rounds below this one that the file lacks; once, before the first new round.

        Returns:
            What was done, in words; empty if there was nothing to do.

        Raises:
            StoppedError: the process is to end.
            CoordinatorUnavailableError: the coordinator does not answer.
            BasisRefusedError: a past basis is not one that the method can have led to.
        """
        if self._is_back or self.state_file is None or not isinstance(transport, RecallTransport):
            return ""
        self._is_back = True
        begins = self.learner.last_round is None or bool(self._chain_problem)
        first = 0 if begins or self.learner.last_round is None else self.learner.last_round + 1
        if first >= round_number:
            return ""
        recall = Recall(transport, loop, self._around, self.learner.specification)
        if begins:
            return self._learn_all_again(recall, round_number)
        return self._learn_again(recall, first, round_number)

    def _learn_all_again(self, recall: "Recall", before: int) -> str:
        """If the chain cannot continue from the file: from its beginning, while all bases are kept."""
        found = recall(0, before)
        if found is None or found.lost or not found.bases:
            was_here = self.learner.last_round is not None or (found is not None and found.lost > 0)
            return self._not_again(found) if was_here else ""
        assert self.state_file is not None
        self.learner = self._make(found.bases[0].round)
        self._kept = ()
        self.state_file.have(self.learner)
        words = self._learn_again(recall, 0, before, found)
        return f"{words}; so its chain is the one of then" if self._chain_problem and self.is_exact else words

    def _learn_again(self, recall: "Recall", first: int, before: int, found: RecalledRounds | None = None) -> str:
        rounds, spec = 0, self.learner.specification
        last: tuple[int, Float[np.ndarray, "d r"]] | None = None
        while first < before:
            found = found or recall(first, before)
            if found is None or found.lost:
                return self._not_again(found)
            for number, basis, covariance in found.bases:
                if self._around.is_ending():
                    raise StoppedError("it was stopped before it was back where its run is")
                # Durable rounds form one sequence, whatever restarts there were.
                turn = None if last is None else Turn(*last, spec.largest_turn_between(last[0], number))
                check_basis(basis, number, turn)
                last = number, basis
                self.learn(number, basis, covariance)
                self.save_now_and_then()
            rounds += len(found.bases)
            first, found = found.next_round, None
        return f"learnt {rounds} rounds again, up to round {before - 1}, at the bases of then" if rounds else ""

    def _not_again(self, found: RecalledRounds | None) -> str:
        self.is_exact = False
        why = "the coordinator does not give their bases" if found is None else "their bases are not kept any more"
        what = f"{found.lost} rounds" if found is not None and found.lost else "the rounds"
        return (
            f"{what} that it had learnt after its file was written cannot be learnt again, for {why}; it continues "
            "without them, so the run comes to other bits than one that was never broken"
        )


class Recall:
    """Asks for past rounds from the learning thread, as long as the coordinator may answer."""

    def __init__(
        self,
        transport: RecallTransport,
        loop: asyncio.AbstractEventLoop,
        around: LearnerContext,
        specification: RunSpecification,
    ) -> None:
        self._transport, self._loop, self._around = transport, loop, around
        self._specification = specification

    def __call__(self, first: int, before: int) -> RecalledRounds | None:
        """The rounds from `first` on, below `before`; None where such a question is not answered.

        Raises:
            StoppedError: the process is to end.
            CoordinatorUnavailableError: the coordinator does not answer.
        """
        deadline = time.monotonic() + self._around.progress_timeout_seconds
        while True:
            if self._around.is_ending():
                raise StoppedError("it was stopped before it was back where its run is")
            try:
                return self._ask(first, before)
            except (CoordinatorUnavailableError, DrainingError, SessionUnknownError, RateLimitedError):
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_RETRY_SECONDS)
            except CospanError as failure:
                log.warning("past rounds cannot be recalled: %s", failure)
                return None

    def _ask(self, first: int, before: int) -> RecalledRounds:
        return asyncio.run_coroutine_threadsafe(self._asked(first, before), self._loop).result()

    async def _asked(self, first: int, before: int) -> RecalledRounds:
        """On the event loop: a group that continues without a member has given its former session up by then."""
        token = self._around.token()
        if token is None:
            raise SessionUnknownError("the session is over; it is joined again")
        return await self._transport.recall(self._specification, token, first, before)


def vectors_before(welcome: Welcome) -> int:
    """How many vectors an agent without a file may have sent in this run before it was welcomed.

    One in each round below its first, and one more for each start of the coordinator after the first, which opens
    the round again that was open. An agent that has never been here cannot be told from one that has lost its file.
    """
    if not welcome.first_round:
        return 0
    return welcome.first_round + welcome.stamp.incarnation - 1
