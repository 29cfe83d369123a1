"""A relay's own conversation with its coordinator: the agent's session machine, and nobody who learns behind it."""

import asyncio
import contextlib
import importlib.metadata
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, assert_never

from cospan.client.session import machine as session
from cospan.client.session.run_checks import check_basis
from cospan.client.session.tasks import end_tasks, within
from cospan.client.session.transport import AgentStream, Transport, is_near, stamp_or_error
from cospan.core.specification import RunSpecification
from cospan.relay.events import Refused, RoundOpened, RunFinished, UpstreamEvent, Welcomed
from cospan.wire.errors import (
    AgentIdTakenError,
    BasisRefusedError,
    CospanError,
    ForeignRunError,
    IdentityMismatchError,
    TooManyAgentsError,
)
from cospan.wire.messages import AgentMessage, Finish, FinishCause, GradientUpload, Join, Welcome

_FAREWELL_SECONDS = 1.0
"""So long a stream that is given up waits for its last messages to leave."""
_CLOSE_SECONDS = 5.0
"""A stream that is not closed by then is left behind."""
_OF_SOME = (AgentIdTakenError, IdentityMismatchError, TooManyAgentsError)
"""What a join is refused with because of some of its agents: without those that are new the others are in."""


class Upstream:
    """One process' part in a run, on behalf of agents that come and go."""

    def __init__(
        self,
        transport: Transport,
        *,
        progress_timeout_seconds: float,
        min_steps_per_round: int,
        tell: Callable[[UpstreamEvent], None],
        fail: Callable[[CospanError], None],
    ) -> None:
        """Nothing is connected yet.

        Args:
            transport: how to reach the coordinator.
            progress_timeout_seconds: seconds without an answer of the coordinator after which it gives up.
            min_steps_per_round: a run with fewer steps a round is refused.
            tell: called with what the coordinator says.
            fail: called once, when the conversation is over and not in order.
        """
        self.specification: asyncio.Future[RunSpecification] = asyncio.get_running_loop().create_future()
        """Of the run, once the coordinator has said it."""
        self._transport, self._progress_timeout_seconds, self._tell, self._fail = (
            transport,
            progress_timeout_seconds,
            tell,
            fail,
        )
        self._min_steps_per_round = min_steps_per_round
        self._names: tuple[str, ...] = ()
        self._welcomed: frozenset[str] = frozenset()
        self._fingerprint = ""
        self._state: session.SessionState
        self._inbox: deque[session.Event] = deque()
        self._stepping = self._over = False
        self._stream: AgentStream | None = None
        self._outbox: asyncio.Queue[AgentMessage | None] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None
        self._caller: asyncio.Task[None] | None = None
        self._last_words: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._rng = random.Random(secrets.randbits(64))
        self._instance = secrets.token_hex(16)

    # What the relay wants ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to ask what the run is."""
        self._begin()
        self._ticker = asyncio.create_task(self._guarded(self._tick()))

    def host(self, agent_ids: tuple[str, ...], feature_fingerprint: str) -> None:
        """Takes part for these agents from now on; for none: leaves until there are some."""
        self._names, self._fingerprint = agent_ids, feature_fingerprint
        self._welcomed = self._welcomed.intersection(agent_ids)
        if not agent_ids:
            self._leave("the last of its agents is gone", returning=True)
            self._begin()
        elif self._state.phase is session.Phase.PREPARING:
            self._post(session.Prepared(self._join()))
        elif self._state.join is not None:
            self._post(session.Regrouped(agent_ids))

    def upload(self, upload: GradientUpload) -> None:
        """Sends the sum of the round that was opened last."""
        if self._state.learning == upload.round:
            self._post(session.GradientReady(upload))

    def leave(self, cause: str) -> None:
        """Leaves the run for good."""
        self._leave(cause, returning=False)
        self._over = True

    async def close(self) -> None:
        """Ends the conversation; what was to be sent is sent first where that is still possible."""
        self._over = True
        if self._ticker is not None:
            self._ticker.cancel()
        self._hang_up()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=2.0 * _FAREWELL_SECONDS)
        await end_tasks(self._tasks)

    # The machine -------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._welcomed = frozenset()
        self._state, commands = session.initial_state(
            progress_timeout_seconds=self._progress_timeout_seconds,
            now=time.monotonic(),
            min_steps_per_round=self._min_steps_per_round,
            spread=self._rng.random(),
            near=is_near(self._transport),
        )
        for command in commands:
            self._execute(command)

    def _leave(self, cause: str, *, returning: bool) -> None:
        self._inbox.clear()
        self._state, commands = session.step(self._state, session.StopRequested(cause, returning), time.monotonic())
        for command in commands:
            if isinstance(command, session.Transmit):
                self._outbox.put_nowait(command.message)
        self._hang_up()

    def _join(self) -> Join:
        assert self._state.described is not None
        return Join(
            instance_id=self._instance,
            agent_ids=self._names,
            feature_dim=self._state.described.feature_dim,
            feature_fingerprint=self._fingerprint,
            workload=self._state.described.workload,
            client_version=importlib.metadata.version("cospan"),
        )

    async def _tick(self) -> None:
        while not self._over:
            await asyncio.sleep(session.tick_seconds(self._state))
            self._post(session.Tick())

    def _post(self, event: session.Event) -> None:
        self._inbox.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._inbox and not self._over:
                self._dispatch(self._inbox.popleft())
        finally:
            self._stepping = False

    def _dispatch(self, event: session.Event) -> None:
        self._state, commands = session.step(self._state, event, time.monotonic())
        message = event.message if isinstance(event, session.Received) else None
        if isinstance(message, Welcome) and self._state.phase is session.Phase.ACTIVE:
            self._welcomed = frozenset(message.agent_ids)
            self._tell(Welcomed(message))
        for command in commands:
            if isinstance(command, session.Conclude):
                self._conclude(command, message)
            else:
                self._execute(command)

    def _conclude(self, command: session.Conclude, message: object) -> None:
        if isinstance(message, Finish):
            self._tell(RunFinished(message))
        elif self._state.stamp is not None and command.basis is not None:
            # It was over when the relay came back; how it ended, nobody says.
            self._tell(RunFinished(Finish(self._state.stamp, FinishCause.STOPPED, command.message, command.basis)))

    def _execute(self, command: session.Command) -> None:
        match command:
            case session.Inquire(after_seconds=pause):
                self._call(self._inquire(pause))
            case session.Prepare(specification=specification):
                self._prepare(specification)
            case session.Connect(after_seconds=pause):
                self._call(self._connect(pause))
            case session.Transmit(message=message):
                self._outbox.put_nowait(self._shortened(message))
            case session.Ask(within_seconds=seconds):
                self._keep(asyncio.create_task(self._guarded(self._ask(seconds))))
            case session.Learn():
                self._open(command)
            case session.Fail(error=error):
                self._give_up(error)
            case session.Begin() | session.Conclude():
                pass
            case _:
                assert_never(command)

    def _open(self, command: session.Learn) -> None:
        """Hands a round on to the agents, which look at its basis too: the relay is no use where it is refused."""
        assert self._state.stamp is not None
        try:
            check_basis(command.basis, command.round, command.turn)
        except BasisRefusedError as refusal:
            self._post(session.LearningFailed(refusal))
        else:
            self._tell(RoundOpened(self._state.stamp, command.round, command.basis))

    def _shortened(self, message: AgentMessage) -> AgentMessage:
        """An upload over all agents of the session names none: with thousands that is most of its small size."""
        join = self._state.join
        if isinstance(message, GradientUpload) and join is not None and message.agent_ids == join.agent_ids:
            return replace(message, agent_ids=())
        return message

    def _prepare(self, specification: RunSpecification) -> None:
        if not self.specification.done():
            self.specification.set_result(specification)
        elif not _is_same(self.specification.result(), specification):
            self._give_up(
                ForeignRunError(
                    "the coordinator now holds another run; start the relay anew to take part in that one"
                )
            )
            return
        if self._names:
            self._inbox.append(session.Prepared(self._join()))

    def _give_up(self, error: CospanError) -> None:
        if not self._over:
            self._over = True
            if not self.specification.done():
                self.specification.set_exception(error)
            self._fail(error)

    # The connection ----------------------------------------------------------------------------------------------

    def _call(self, job: Coroutine[Any, Any, None]) -> None:
        """Begins a call in place of the one that was."""
        self._hang_up()
        self._caller = asyncio.create_task(self._guarded(job))
        self._keep(self._caller)

    async def _guarded(self, job: Coroutine[Any, Any, None]) -> None:
        try:
            await job
        except Exception as failure:  # else nobody would know
            error = CospanError(f"the connection of the relay failed: {type(failure).__name__}: {failure}")
            error.__cause__ = failure
            self._give_up(error)

    async def _inquire(self, pause: float) -> None:
        await asyncio.sleep(pause)
        try:
            self._post(session.Described(await self._transport.describe()))
        except CospanError as failure:
            self._post(session.StreamBroke(failure, self._rng.random()))

    async def _connect(self, pause: float) -> None:
        """Opens a stream and reads from it until it breaks, or is given up."""
        if self._last_words is not None:
            await asyncio.wait({self._last_words}, timeout=_FAREWELL_SECONDS)
        await asyncio.sleep(pause)
        caller = asyncio.current_task()
        try:
            self._stream = stream = await self._transport.open(self.specification.result())
            self._outbox = asyncio.Queue()
            self._writer = asyncio.create_task(_write_all(stream, self._outbox))
            self._post(session.Connected())
            while self._caller is caller:
                message = await stream.receive()
                if self._caller is caller:
                    self._post(session.Received(message))
        except CospanError as failure:
            if self._caller is caller:
                self._broke(failure)

    async def _ask(self, seconds: float) -> None:
        """Asks over the stream whether the coordinator still answers."""
        stream = self._stream
        if stream is None:
            return
        answer = await stamp_or_error(stream, seconds)
        if self._stream is stream:  # else the question was for one that is closed
            self._post(session.answer_to_ask(answer))

    def _broke(self, failure: CospanError) -> None:
        if isinstance(failure, _OF_SOME) and self._welcomed and not self._welcomed.issuperset(self._names):
            self._tell(Refused(failure))
        else:
            self._post(session.StreamBroke(failure, self._rng.random()))

    def _hang_up(self) -> None:
        """Gives the stream up, if there is one; what is in the outbox has a moment to leave."""
        caller, self._caller = self._caller, None
        stream, self._stream = self._stream, None
        writer, self._writer = self._writer, None
        if stream is not None and writer is not None:
            # Its reader is left to find the end: cancelling it would cancel the call, and what is on its way.
            self._outbox.put_nowait(None)
            self._last_words = writer
            self._keep(asyncio.create_task(_say_farewell(stream, writer)))
        elif caller is not None and caller is not asyncio.current_task():
            caller.cancel()
        self._outbox = asyncio.Queue()

    def _keep(self, task: "asyncio.Task[None]") -> None:
        """Holds on to a task until it has ended."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _write_all(stream: AgentStream, outbox: asyncio.Queue[AgentMessage | None]) -> None:
    """Sends what is put into the outbox, until None; a broken stream is noticed by its reader, which says why."""
    with contextlib.suppress(CospanError):
        while (message := await outbox.get()) is not None:
            await stream.send(message)


async def _say_farewell(stream: AgentStream, writer: "asyncio.Task[None]") -> None:
    await asyncio.wait({writer}, timeout=_FAREWELL_SECONDS)
    writer.cancel()
    await within(_CLOSE_SECONDS, stream.close())


def _is_same(before: RunSpecification, after: RunSpecification) -> bool:
    """Whether two specifications are one; the first agent to join fixes the fingerprint in between."""
    return replace(before, feature_fingerprint=after.feature_fingerprint) == after
