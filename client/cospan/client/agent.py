"""An agent: a learner, its conversation with the coordinator, and the loop that joins the two."""

import asyncio
import contextlib
import importlib.metadata
import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, assert_never

import numpy as np
from jaxtyping import Float

from cospan.client import session
from cospan.client.chain import checked_features
from cospan.client.loading import load_workload, make_site
from cospan.client.result_file import save_result
from cospan.client.site_learner import SiteLearner
from cospan.client.state_file import CHECKPOINT_SECONDS, StateFile, resumed
from cospan.client.transport import AgentStream, GrpcTransport, Transport
from cospan.client.worker import Worker
from cospan.client.workload import Site, Workload
from cospan.core.specification import SITE_PREFIX, RunSpecification, agent_id_problem
from cospan.wire.errors import CospanError, InvalidValueError, WorkloadBehaviourError
from cospan.wire.limits import MAX_TEXT
from cospan.wire.messages import AgentMessage, Join, Welcome
from cospan.wire.tls import TlsFiles

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
_ROUND_END_SECONDS = 2.0
"""So long an agent that stops in the middle of a round waits for its end, so that what it saves is whole."""
_UNSEATED = "unseated"
_FAREWELL_SECONDS = 1.0
"""So long an agent that ends waits for its last messages to leave."""


def default_agent_id(index: int) -> str:
    """What the agent of site `index` is called where nobody says otherwise."""
    return f"{SITE_PREFIX}{index}"


@dataclass(frozen=True, slots=True)
class AgentEnd:
    """How an agent's part in the run ended: `message` for people, and the number of rounds it learnt."""

    message: str
    rounds: int


class Agent:
    """One agent of a fleet.

    agent = Agent("queues", index=7, coordinator="127.0.0.1:50051")
    agent.run()                              # until the run is over; or: async with agent: …
    agent.value(observation); agent.gain; agent.save("site-7.npz")
    """

    def __init__(
        self,
        workload: Workload | str,
        *,
        index: int | None = None,
        coordinator: str = "127.0.0.1:50051",
        agent_id: str | None = None,
        holder: str | None = None,
        patience: float = PATIENCE_SECONDS,
        with_baseline: bool = True,
        resume_from: Path | str | None = None,
        state_file: Path | str | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        transport: Transport | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        """Prepares an agent; nothing is connected yet.

        Args:
            workload: a workload, or its name as on the command line.
            index: which site of the workload this is; where left out the coordinator gives it one that is free.
            coordinator: HOST:PORT.
            agent_id: the agent's name in the run; `site-<index>` where left out.
            holder: a name that outlives this process, as that of its container: started again it is given the same
                site. Without `index` only; a random one where left out.
            patience: seconds without an answer of the coordinator after which it gives up.
            with_baseline: whether independent TD learns beside it from the same transitions.
            resume_from: a file of `save`, of the same run and agent, to go on from.
            state_file: where to keep what it learns, during the run and at its end; a folder stands for the file in
                it that has the agent's name. One of the same run and agent is gone on from, without being told;
                one of another run is given another name.
            checkpoint_seconds: how often, at most, that file is written; 0 means at the end alone.
            transport: how to reach the coordinator; gRPC to `coordinator` where left out.
            tls: certificate, key and authority for mutual TLS; the certificate must speak for the agent. Read again
                when the files change. No TLS where left out.

        Raises:
            WorkloadError: there is no such workload or site.
            InvalidValueError: the name is not one that an agent may have; or a file of `tls` cannot be used.
        """
        self.workload = load_workload(workload) if isinstance(workload, str) else workload
        self.index = index
        self.agent_id, self._holder = _identity(index, agent_id, holder)
        """The agent's name, one that stands for none until a site is given; and who asks for a site."""
        self.learner: SiteLearner | None = None
        self.on_round: list[Callable[[Agent, int], None]] = []
        """Called after each round learnt, in the learning thread, with the agent and the round."""
        self.on_note: list[Callable[[Agent, str], None]] = []
        """Called, in the learning thread, with what people should know: which file it goes on from, or not."""
        self._patience, self._with_baseline = patience, with_baseline
        self._resume_from = None if resume_from is None else Path(resume_from)
        self._state_file_at = None if state_file is None else Path(state_file)
        self._checkpoint_seconds = checkpoint_seconds
        self._state_file: StateFile | None = None
        self._transport = transport or GrpcTransport(coordinator, tls=tls)
        self._state: session.SessionState | None = None
        self._inbox: deque[session.Event] = deque()
        self._stepping = False
        self._stream: AgentStream | None = None
        self._outbox: asyncio.Queue[AgentMessage | None] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._specification: RunSpecification | None = None
        self._site: Site | None = None
        self._worker: Worker
        self._outcome: asyncio.Future[AgentEnd]
        self._ticker: asyncio.TimerHandle | None = None
        self._background: asyncio.Task[AgentEnd] | None = None
        self._rng = random.Random(secrets.randbits(64))

    # What it has learnt ---------------------------------------------------------------------------------------

    @property
    def gain(self) -> float:
        """The estimated mean reward per step (averaged iterates of η)."""
        return float(self._learnt().gain.mean[0])

    @property
    def weights(self) -> Float[np.ndarray, " d"]:
        """The learnt value weights ẑ (averaged iterates of B w), shape (d,)."""
        return self._learnt().weights.mean

    def value(self, observation: Any) -> float:
        """The estimated differential value of an observation, φ(s)ᵀ ẑ: defined up to a constant."""
        learner = self._learnt()
        features = checked_features(learner.site.features, [observation], self.agent_id)
        return float(features[0] @ learner.weights.mean)

    def save(self, path: Path | str) -> None:
        """Writes what was learnt as an npz file, which `resume_from` takes; it appears whole or not at all.

        Call it from a function of `on_round`, or when the run is over.
        """
        learner = self._learnt()
        assert self._state is not None
        assert self._state.stamp is not None
        save_result(Path(path), learner, run_id=self._state.stamp.run_id)

    @property
    def state_path(self) -> Path | None:
        """The file that `state_file` has led to; None without one, and before the run has welcomed the agent."""
        return None if self._state_file is None else self._state_file.path

    def _learnt(self) -> SiteLearner:
        if self.learner is None:
            raise InvalidValueError(f"agent {self.agent_id} has learnt nothing yet; run it first")
        return self.learner

    # Running ----------------------------------------------------------------------------------------------------

    def run(self) -> AgentEnd:
        """Takes part until the run is over, and blocks meanwhile.

        Raises:
            CospanError: it did not end in order; what was learnt can be saved all the same.
        """
        return asyncio.run(self.run_async())

    async def run_async(self) -> AgentEnd:
        """Takes part until the run is over; see `run`."""
        self._worker = Worker(f"learner-{self.agent_id}")
        self._outcome = asyncio.get_running_loop().create_future()
        self._state, commands = session.initial_state(patience=self._patience, now=time.monotonic())
        try:
            self._tick_later()
            for command in commands:
                self._execute(command)
            self._step()
            return await self._outcome
        finally:
            await self._end()

    async def _end(self) -> None:
        """Leaves nothing behind that runs on: no stream, no task, no learning; and what was learnt in its file."""
        state_file = self._state_file
        if state_file is not None:
            self._worker.submit(state_file.after_last_round)
        self._worker.stop()
        if self._ticker is not None:
            self._ticker.cancel()
        await self._hang_up(patience=_FAREWELL_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._hang_up()
        if state_file is not None or (self._state is not None and self._state.learning is not None):
            await asyncio.to_thread(self._worker.join, _ROUND_END_SECONDS)
        if state_file is not None:
            await asyncio.to_thread(state_file.finish)

    def stop(self, cause: str, *, returning: bool = False) -> None:
        """Asks the agent to leave the run; `run` returns soon after. Call it on the event loop's thread.

        Args:
            cause: one sentence, for the coordinator's log.
            returning: whether the agent will be started again: a run whose agents have all left waits for it.
        """
        self._post(session.StopRequested(cause, returning))

    async def __aenter__(self) -> Self:
        self._background = asyncio.create_task(self.run_async())
        return self

    async def wait(self) -> AgentEnd:
        """Within `async with`: waits for the end of the run; raises as `run` does."""
        if self._background is None:
            raise InvalidValueError("wait() works within `async with agent:` only")
        return await self._background

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._background is not None
        if not self._background.done():
            self.stop("its program has finished with it")
            await self._background

    def _tick_later(self) -> None:
        """Lets the machine know, in a while, that time has passed: that is what bounds every one of its waits."""
        if self._ticker is not None:
            self._ticker.cancel()
        assert self._state is not None
        self._ticker = asyncio.get_running_loop().call_later(session.tick_seconds(self._state), self._tick)

    def _tick(self) -> None:
        self._post(session.Tick())
        self._tick_later()

    def _post(self, event: session.Event) -> None:
        """Lets an event happen, on the event loop's thread: at once, or after the one that is happening."""
        self._inbox.append(event)
        self._step()

    def _step(self) -> None:
        if self._stepping or self._state is None:
            return
        self._stepping = True
        try:
            while self._inbox and not self._outcome.done():
                self._state, commands = session.step(self._state, self._inbox.popleft(), time.monotonic())
                for command in commands:
                    self._execute(command)
        except Exception as failure:  # also of a callback: there it would end in a log and nobody would know
            self._fail(failure)
        finally:
            self._stepping = False

    def _fail(self, failure: Exception) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(failure)

    def _execute(self, command: session.Command) -> None:
        match command:
            case session.Inquire(after_seconds=pause):
                self._in_background(self._inquire(pause))
            case session.Prepare(specification=specification):
                self._in_worker(partial(self._prepare, specification))
            case session.Connect(after_seconds=pause):
                self._in_background(self._connect(pause))
            case session.Begin(welcome=welcome):
                self._in_worker(partial(self._begin, welcome))
                self._tick_later()  # how often is known only now
            case session.Transmit(message=message):
                self._outbox.put_nowait(message)
            case session.Learn(round=number, basis=basis):
                self._in_worker(partial(self._learn, number, basis))
            case session.Conclude(message=message):
                rounds = 0 if self.learner is None else self.learner.rounds
                self._outcome.set_result(AgentEnd(message, rounds))
            case session.Fail(error=error):
                self._fail(error)
            case _:
                assert_never(command)

    def _in_background(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._guarded(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, job: Coroutine[Any, Any, None]) -> None:
        """Runs a job of the connection; one that fails in a way that nobody foresaw must not fail in silence."""
        try:
            await job
        except Exception as failure:
            error = CospanError(f"the connection of {self.agent_id} failed: {type(failure).__name__}: {failure}")
            error.__cause__ = failure
            self._post(session.LearningFailed(error))

    def _in_worker(self, job: Callable[[], session.Event | None]) -> None:
        """Runs a job in the learning thread; the event that it returns, if any, comes back to the loop."""
        loop = asyncio.get_running_loop()

        def report() -> None:
            event: session.Event | None
            try:
                event = job()
            except CospanError as failure:
                event = session.LearningFailed(failure)
            except BaseException as failure:  # an environment may also call sys.exit
                event = session.LearningFailed(_unexpected(self.agent_id, failure))
            if event is None:
                return
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._post, event)

        self._worker.submit(report)

    # What the commands do --------------------------------------------------------------------------------------

    async def _inquire(self, pause: float) -> None:
        await asyncio.sleep(pause)
        try:
            self._post(session.Described(await self._transport.describe()))
        except CospanError as failure:
            self._broke(failure)

    def _prepare(self, specification: RunSpecification) -> session.Event:
        """Makes the site; in the learning thread, where all of the workload's code runs."""
        self._specification = specification
        # Whatever site it will be, the features are those of the workload.
        site = make_site(self.workload, self.index or 0, specification.seed)
        self._site = None if self.index is None else site
        return session.Prepared(
            Join(
                instance_id=secrets.token_hex(16),
                agent_ids=() if self.index is None else (self.agent_id,),
                holder=self._holder,
                feature_dim=site.features.dim,
                feature_fingerprint=site.features.fingerprint,
                workload=self.workload.name[:MAX_TEXT],
                client_version=importlib.metadata.version("cospan"),
            )
        )

    async def _connect(self, pause: float) -> None:
        """Opens a stream and reads from it until it breaks."""
        await self._hang_up()
        await asyncio.sleep(pause)
        assert self._specification is not None
        stream = None
        try:
            self._stream = stream = await self._transport.open(self._specification)
            self._outbox = asyncio.Queue()
            self._writer = asyncio.create_task(self._guarded(_write_all(stream, self._outbox)))
            self._post(session.Connected())
            while True:
                self._post(session.Received(await stream.receive()))
        except CospanError as failure:
            if self._stream is stream:  # else it was hung up on purpose
                self._broke(failure)

    def _begin(self, welcome: Welcome) -> None:
        """The first welcome: the specification is final, the learner can be made; in the learning thread."""
        if self._site is None:
            assert welcome.site_index is not None
            self._site = make_site(self.workload, welcome.site_index, welcome.specification.seed)
            self.index = welcome.site_index
            (self.agent_id,) = welcome.agent_ids
        assert self.index is not None
        learner = SiteLearner(
            self._site,
            welcome.specification,
            name=self.agent_id,
            index=self.index,
            with_baseline=self._with_baseline,
            first_round=welcome.first_round,
        )
        self._take_up(learner, welcome.stamp.run_id)
        self.learner = learner

    def _take_up(self, learner: SiteLearner, run_id: str) -> None:
        """Lets the learner go on from the file that was named, or else from its own of this run."""
        notes = []
        if self._resume_from is not None:
            notes.append(resumed(learner, self._resume_from, run_id=run_id))
        if self._state_file_at is not None:
            state_file = StateFile(
                self._state_file_at, learner, run_id=run_id, every_seconds=self._checkpoint_seconds
            )
            notes.append(state_file.take_up(resuming=self._resume_from is None))
            self._state_file = state_file
        for note in filter(None, notes):
            log.info("%s: %s", self.agent_id, note)
            for listener in self.on_note:
                listener(self, note)

    def _learn(self, round_number: int, basis: Float[np.ndarray, "d r"]) -> session.Event:
        upload = self._learnt().learn(round_number, basis)
        for listener in self.on_round:
            listener(self, round_number)
        if self._state_file is not None:
            self._state_file.after_round()
        return session.GradientReady(upload)

    def _broke(self, failure: CospanError) -> None:
        self._post(session.StreamBroke(failure, jitter=self._rng.random()))

    async def _hang_up(self, patience: float = 0.0) -> None:
        """Closes the stream, if there is one, after waiting so many seconds for what is still to be sent."""
        stream, self._stream = self._stream, None
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                self._outbox.put_nowait(None)
                if patience:
                    await asyncio.wait({writer}, timeout=patience)
                writer.cancel()
        finally:
            if stream is not None:
                await stream.close()


async def _write_all(stream: AgentStream, outbox: asyncio.Queue[AgentMessage | None]) -> None:
    """Sends what is put into the outbox, until None; a broken stream is noticed by its reader, which says why."""
    with contextlib.suppress(CospanError):
        while (message := await outbox.get()) is not None:
            await stream.send(message)


def _identity(index: int | None, agent_id: str | None, holder: str | None) -> tuple[str, str]:
    """The names of an agent and of the holder of its site, of which the latter is empty where the site is known.

    Raises:
        InvalidValueError: they do not go together, or one may not be had.
    """
    if index is None and agent_id is not None:
        raise InvalidValueError(f"agent {agent_id!r} has no site; say its index, or leave out its name")
    if index is not None and holder is not None:
        raise InvalidValueError(f"site {index} is asked for by its index; leave out the holder {holder!r}")
    if index is None:
        named = secrets.token_hex(16) if holder is None else holder
        found = _UNSEATED, named
    else:
        named = default_agent_id(index) if agent_id is None else agent_id
        found = named, ""
    problem = agent_id_problem(named)
    if problem is not None:
        raise InvalidValueError(problem)
    return found


def _unexpected(agent_id: str, failure: BaseException) -> CospanError:
    error = WorkloadBehaviourError(f"the learner of {agent_id} failed: {type(failure).__name__}: {failure}")
    error.__cause__ = failure
    return error
