"""The common part of an agent and a group: the learner, its thread and its file, around one session."""

import asyncio
import importlib.metadata
import logging
import secrets
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

from cospan.client.environment.group_rollout import keeps_numbers
from cospan.client.files.persistence import Learner, LearnerContext, StateKeeper, StatePolicy, vectors_before
from cospan.client.files.state_file import FileKind, StateFile
from cospan.client.learning.learner_thread import sum_up_seconds
from cospan.client.learning.site_learner import Warned
from cospan.client.session import machine as session
from cospan.client.session.driver import SessionDriver, SessionHooks
from cospan.client.session.learning_session import AgentEnd, LearningSession
from cospan.client.session.message_checks import memory_problem
from cospan.client.session.run_checks import check_basis, check_counting, check_sharing, slow_round
from cospan.client.session.settings import ClientSettings
from cospan.client.session.transport import Transport
from cospan.client.step_source import AT_END
from cospan.client.workload import FeatureMap, Workload
from cospan.core.privacy.word_source import SystemWords, WordSource
from cospan.core.specification import RunSpecification
from cospan.wire import fork_guard
from cospan.wire.errors import InvalidValueError
from cospan.wire.messages import Join, Welcome
from cospan.wire.notes import bound_note
from cospan.wire.text import MAX_TEXT

log = logging.getLogger(__name__)

L = TypeVar("L", bound=Learner)


class LearningClient(LearningSession, Generic[L]):
    """One process that learns in a run: the base of `Agent` and `AgentGroup`."""

    def __init__(
        self, workload: Workload, transport: Transport, kind: FileKind[L], settings: ClientSettings, agents: int = 1
    ) -> None:
        """Nothing is connected yet.

        Args:
            workload: of the sites.
            transport: how to reach the coordinator.
            kind: what its files hold.
            settings: what it keeps and refuses.
            agents: how many are hosted.
        """
        self.workload = workload
        self.settings = settings
        self.learner: L | None = None
        self.learning_seconds: float | None = None
        """How long the newest round took to learn; None before the first."""
        self.on_round: list[Callable[[Self, int], None]] = []
        """Called after each round learnt, in the learning thread, with the agent and the round."""
        self.on_note: list[Callable[[Self, str], None]] = []
        """Called, in the learning thread, with notices, such as the file that is continued from."""
        self.on_warning: list[Callable[[Self, Warned], None]] = []
        """Called, in the learning thread, with problems that do not stop the agent."""
        self.noise: Callable[[int], WordSource] = lambda _: SystemWords()
        """Gives the source of a round's noise, in a run with differential privacy. Tests alone set another one."""
        self.is_writing = False
        """Whether the session is over, and what was learnt is being written for the last time."""
        self._site_claim_id = ""
        """The name under which a site is claimed; empty if the site is known."""
        self._kind, self._agents = kind, agents
        self._policy = StatePolicy.of(settings.resume_from, settings.state_file, settings.checkpoint_seconds)
        self._keeper: StateKeeper[L] | None = None
        self._transport = transport
        self._specification: RunSpecification | None = None
        self._driver = SessionDriver(transport, self._hooks(), settings)
        self._background: asyncio.Task[AgentEnd] | None = None
        self._told = self._bound_told = self._was_slow = False

    # What is hosted -------------------------------------------------------------------------------------------

    @abstractmethod
    def _make_sites(self, specification: RunSpecification) -> tuple[tuple[str, ...], FeatureMap]:
        """Makes the sites of this run, in the learning thread.

        Returns:
            The agents' names, sorted; empty where the coordinator gives one. And the feature map φ.
        """

    @abstractmethod
    def _make_learner(self, welcome: Welcome) -> L:
        """A learner at its first round, for the final specification; in the learning thread."""

    @abstractmethod
    def _close_sites(self) -> None:
        """Closes the environments that were made; in the learning thread."""

    def _hosted(self) -> tuple[str, ...] | None:
        """The sorted names of the hosted agents, where they have changed since the last call; else None."""
        return None

    @property
    def state_path(self) -> Path | None:
        """The file that is written; None without one, and before the first welcome."""
        state_file = self._state_file
        return None if state_file is None else state_file.path

    @property
    def _state_file(self) -> StateFile[L] | None:
        return None if self._keeper is None else self._keeper.state_file

    @property
    def is_exact(self) -> bool:
        """Whether its results are bit for bit those of a process that never failed, as far as is known."""
        return self._keeper is None or self._keeper.is_exact

    @property
    def is_awaited(self) -> bool:
        """Whether a session is open, and its coordinator has not said that it goes down."""
        state = self._driver.state
        return state is not None and state.phase is session.Phase.ACTIVE and state.resume_at <= time.monotonic()

    @property
    def is_unanswered(self) -> bool:
        """Whether a session has begun, and no coordinator has said yet what the run is."""
        state = self._driver.state
        return state is not None and state.phase is session.Phase.OFFLINE and state.described is None

    @property
    def run_id(self) -> str | None:
        """The run's id; None before the first welcome."""
        state = self._driver.state
        return None if state is None or state.stamp is None else state.stamp.run_id

    def _learnt(self) -> L:
        if self.learner is None:
            raise InvalidValueError(f"{self._title} has learnt nothing yet; run it first")
        return self.learner

    def _write_last(self, state_file: StateFile[L]) -> None:
        """Writes the file for the last time, when the learning is over; in a thread that may block."""
        state_file.finish()

    # Running ----------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Ends stream, tasks and learning, and writes the file for the last time."""
        keeper, state_file = self._keeper, self._state_file
        if self.learner is not None:
            self.learner.interrupt()
        if keeper is not None:
            self._worker.submit_last(keeper.after_last_round)
        self._worker.submit(self._close_sites)
        await super()._end()
        if state_file is not None:
            self.is_writing = True
            try:
                await asyncio.to_thread(self._worker.wait_for_last, sum_up_seconds(self._agents))
                await asyncio.to_thread(self._write_last, state_file)
            finally:
                self.is_writing = False

    def stop(self, cause: str, *, returning: bool = False) -> None:
        """Asks the agent to leave the run; `run` returns soon after. Call it on the event loop's thread.

        Args:
            cause: one sentence, for the coordinator's log.
            returning: whether the agent will be started again: a run whose agents have all left waits for it.
        """
        fork_guard.refuse_in_child()
        self._driver.post(session.StopRequested(cause, returning))

    async def __aenter__(self) -> Self:
        fork_guard.refuse_in_child()
        self._told = False
        self._background = asyncio.create_task(self.run_async())
        return self

    async def wait(self) -> AgentEnd:
        """Within `async with`: waits for the end of the run; raises as `run` does."""
        fork_guard.refuse_in_child()
        if self._background is None:
            raise InvalidValueError("wait() works within `async with agent:` only")
        self._told = True
        return await self._background

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the run. A failure that `wait` has not raised is raised here, unless the block itself failed."""
        fork_guard.refuse_in_child()
        assert self._background is not None
        if not self._background.done():
            self.stop("its program has finished with it")
        (outcome,) = await asyncio.gather(self._background, return_exceptions=True)
        if isinstance(outcome, Exception) and kind is None and not self._told:
            raise outcome

    # The session -------------------------------------------------------------------------------------------------

    def _hooks(self) -> SessionHooks:
        """All of the workload's code runs in the learning thread, so that the event loop never waits for it."""
        return SessionHooks(
            name=lambda: self.name,
            prepare=lambda specification: self._in_worker(partial(self._prepare, specification)),
            begin=lambda welcome: self._in_worker(partial(self._begin, welcome)),
            learn=lambda command: self._in_worker(partial(self._learn, command)),
            conclude=self._conclude,
            fail=self._fail,
            count=lambda: self._in_worker(self._count),
            noise=self._noise_of,
        )

    def _noise_of(self, round_number: int) -> WordSource:
        return self.noise(round_number)

    def _conclude(self, command: session.Conclude) -> None:
        if not self._outcome.done():
            rounds = 0 if self.learner is None else self.learner.rounds
            self._outcome.set_result(AgentEnd(command.message, rounds, command.left))

    # In the learning thread --------------------------------------------------------------------------------------

    def _prepare(self, specification: RunSpecification) -> session.Event:
        """Makes the sites.

        Raises:
            InvalidValueError: the run has secure sums, and TD errors were to be shared; or it has differential
                privacy, and this process is a group, or has no file to count in.
            RunTooLargeError: a round needs more memory than the process may use.
        """
        self._specification = specification
        check_sharing(specification, share_td_error=self.settings.share_td_error)
        check_counting(specification, keeps_file=self._policy.state_file is not None)
        names, features = self._make_sites(specification)
        if specification.feature_dim == features.dim:  # else the session refuses it for that
            in_table = self._agents > 1 and keeps_numbers(self.workload, features, specification)
            if problem := memory_problem(specification, self._agents, self.settings.memory_gib, in_table=in_table):
                raise problem
        join = Join(
            instance_id=secrets.token_hex(16),
            agent_ids=names,
            site_claim_id=self._site_claim_id,
            feature_dim=features.dim,
            feature_fingerprint=features.fingerprint,
            workload=self.workload.name[:MAX_TEXT],
            client_version=importlib.metadata.version("cospan"),
            keeps_state=self._policy.state_file is not None,
        )
        return session.Prepared(join)

    def _begin(self, welcome: Welcome) -> None:
        """The first welcome: the specification is final, so the learner can be made."""
        around = LearnerContext(
            self._token,
            self._durable_round,
            self._outcome.done,
            self._saved,
            self.settings.progress_timeout_seconds,
        )
        self._keeper = StateKeeper(
            lambda first_round: self._make_learner(replace(welcome, first_round=first_round)),
            self._kind,
            self._policy,
            around,
            run_id=welcome.stamp.run_id,
            first_round=welcome.first_round,
            vectors_before=vectors_before(welcome),
        )
        self.learner = self._keeper.learner
        for note in self._keeper.notes:
            self._note(note)
        self._regroup()

    def _saved(self, rounds: int) -> None:
        """The rounds below this one are all in the file; in any thread."""
        self._post_from_thread(session.Saved(rounds))

    def _regroup(self) -> None:
        """Joins again without members that were dropped, before a sum without them is sent."""
        hosted = self._hosted()
        if hosted is not None:
            self._post_from_thread(session.Regrouped(hosted))

    def _note(self, note: str, *, level: int = logging.INFO) -> None:
        """Logs what people should know, and tells the listeners."""
        log.log(level, "%s: %s", self.name, note)
        for listener in self.on_note:
            listener(cast("Self", self), note)

    def _token(self) -> str | None:
        state = self._driver.state
        return None if state is None else state.token

    def _durable_round(self) -> int:
        state = self._driver.state
        return 0 if state is None or state.stamp is None else state.stamp.durable_round

    def _learn(self, command: session.Learn) -> session.Event:
        """Learns a round, or finds the gradient that was learnt before at the same basis."""
        check_basis(command.basis, command.round, command.turn)
        keeper = self._keeper
        assert keeper is not None
        known = keeper.upload_of(command.round, command.basis, command.head_covariance)
        if known is not None:
            return session.GradientReady(known)
        note = keeper.come_back(command.round, self._transport, self._loop)
        self.learner = learner = keeper.learner
        if note:
            self._note(note)
        begun = time.monotonic()
        upload = keeper.learn(command.round, command.basis, command.head_covariance)
        self.learning_seconds = time.monotonic() - begun
        self._say_slow(self.learning_seconds)
        if upload.bounded and not self._bound_told:
            self._bound_told = True
            self._note(bound_note(upload.bounded, learner.specification.method), level=logging.WARNING)
        self._regroup()
        warnings, learner.warnings[:] = list(learner.warnings), []
        for warning in warnings:
            log.log(logging.INFO if warning.kind == AT_END else logging.WARNING, "%s", warning.text)
            for tell in self.on_warning:
                tell(cast("Self", self), warning)
        for listener in self.on_round:
            listener(cast("Self", self), command.round)
        keeper.save_now_and_then()
        return session.GradientReady(upload)

    def _count(self) -> session.Event:
        """Counts a vector in the file, before it is sent.

        Raises:
            BudgetSpentError: all have been sent.
            RunFileError: the file cannot be written, so nothing may be sent.
        """
        assert self._keeper is not None
        self._keeper.count_vector()
        return session.Counted()

    def _say_slow(self, seconds: float) -> None:
        """Warns once that a round takes longer here than the run waits for one agent."""
        spec = self._specification
        note = None if spec is None or self._was_slow else slow_round(spec, seconds)
        if note is not None:
            self._was_slow = True
            self._note(note, level=logging.WARNING)
