"""A coordinator in this process: its engine, its server, and its orderly end."""

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np
from jaxtyping import Float

from cospan.core.specification import RunSpecification
from cospan.server.admission.interceptor import AdmissionInterceptor
from cospan.server.machine.events import DrainRequested, EndRun, StopRequested, Suspend
from cospan.server.rpc.server import AgentListener
from cospan.server.runtime.engine import RETURN_SECONDS, Engine, EngineSettings
from cospan.server.storage.writer import RunStore
from cospan.server.telemetry.agent_stats import AgentStats
from cospan.server.telemetry.run_status import run_report
from cospan.wire import fork_guard
from cospan.wire.errors import InvalidValueError
from cospan.wire.messages import RunReport
from cospan.wire.security.tls import TlsFiles

log = logging.getLogger(__name__)

RESUME_AFTER_SECONDS = 1.0
"""Agents of a coordinator that goes down try again after so long: about as long as one takes to start."""


class Coordinator:
    """A coordinator in this process.

    Coordinator(specification, port=50051).run()         # until the run is over; or, in an event loop:

    async with Coordinator(specification) as coordinator:
        print(coordinator.address)
        end = await coordinator.wait()

    `cospan.client.specify("queues", agents=8)` makes a specification of a workload; to know d is all that a
    coordinator needs of one.
    """

    def __init__(
        self,
        specification: RunSpecification,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        start_seconds: float = 600.0,
        return_seconds: float = RETURN_SECONDS,
        sites: int | Callable[[], int | None] | None = None,
        store: RunStore | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        """Prepares a run; nothing listens yet.

        Args:
            specification: of the run.
            host: to listen on: an IPv4 or IPv6 address, a name, all of whose addresses are taken, or unix:PATH.
            port: to listen on; 0 for any that is free.
            start_seconds: the longest time to wait for the first round's agents.
            return_seconds: the longest time to wait, in a run that is resumed, for those who took part before.
            sites: how many sites can be given out to agents that bring none; None where there is no limit. A
                function that says so is called in a thread, when the first agent without a site joins.
            store: where the run is stored, and gone on with; it is closed with the coordinator. A run without one
                is lost with this process.
            tls: certificate, key and authority for mutual TLS: peers are who their certificates say. The files are
                read again when they change. None for no TLS, where everybody is who it says it is.

        Raises:
            InvalidValueError: the specification has a value out of range; `host` or `port` is none; or a file of
                `tls` cannot be used.
            CertificateExpiredError: the certificate is not valid now.
            RunFileError: the store cannot be written to.
        """
        problems = specification.problems()
        if problems:
            raise InvalidValueError("; ".join(problems))
        self.asked_to_stop = False
        """Whether somebody has asked for the end of the run."""
        self.interrupted = False
        """Whether it was ended by `interrupt`."""
        self.engine = Engine(
            specification,
            sites=sites,
            store=store,
            settings=EngineSettings(start_seconds=start_seconds, return_seconds=return_seconds),
        )
        self._listener = AgentListener(self.engine, self.stop, host=host, port=port, tls=tls)
        self._stored = store is not None
        self._clock: asyncio.Task[None] | None = None

    @property
    def door(self) -> AdmissionInterceptor:
        """Who may come in, and how many were refused."""
        return self._listener.door

    @property
    def agent_stats(self) -> AgentStats:
        """What onlookers may know of agents beside the machine's state."""
        return self._listener.agent_stats

    @property
    def address(self) -> str:
        """HOST:PORT, [IPV6]:PORT or unix:PATH to connect to; the real port, where 0 was asked for."""
        return self._listener.address

    @property
    def specification(self) -> RunSpecification:
        """Of the run; the feature map's fingerprint is final when the first agent has joined."""
        return self.engine.state.specification

    @property
    def basis(self) -> Float[np.ndarray, "d r"]:
        """B, shape (d, r), after the last round that has closed."""
        return self.engine.state.basis

    def status(self) -> RunReport:
        """The run as it stands: its phase, who takes part, who is waited for, how quick it is."""
        fork_guard.refuse_in_child()
        return run_report(self.engine.state, self.engine.history, self.engine.now(), self.agent_stats)

    def run(self) -> EndRun | Suspend:
        """Listens until the run is over, and blocks meanwhile; an interrupt (Ctrl-C) ends the run in order.

        Raises:
            InvalidValueError: the address cannot be bound; or an event loop runs in this thread, as in a notebook,
                where `await coordinator.run_async()` or `async with coordinator:` leave it free for the agents.
        """
        fork_guard.refuse_in_child()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self.run_async())
        raise InvalidValueError(
            "the coordinator cannot block here, for an event loop runs in this thread, as in a notebook; write "
            "`await coordinator.run_async()` or `async with coordinator:` in place of run()"
        )

    async def run_async(self) -> EndRun | Suspend:
        """Listens until the run is over; see `run`."""
        async with self:
            return await self.wait()

    async def start(self) -> None:
        """Listens.

        Raises:
            InvalidValueError: the address cannot be bound, as when the port is in use.
        """
        fork_guard.refuse_in_child()
        await self._listener.open()
        self._clock = asyncio.create_task(self.engine.keep_time())
        await self._listener.say_serving(True)
        log.info("run %s listens on %s", self.engine.state.config.run_id, self.address)

    async def wait(self) -> EndRun | Suspend:
        """Waits for the end of the run, or for this coordinator's part in it."""
        fork_guard.refuse_in_child()
        await self.engine.ended.wait()
        assert self.engine.end is not None
        return self.engine.end

    def stop(self, message: str = "the coordinator's program has ended it") -> None:
        """Ends the run in order: everybody is told, what was learnt stays. Call it on the event loop's thread."""
        fork_guard.refuse_in_child()
        self.asked_to_stop = True
        self.engine.handle(StopRequested(message))

    def interrupt(self, message: str) -> None:
        """Ends the run in order, as `stop` does, and leaves it to be resumed where it is stored."""
        if not self.engine.ended.is_set():
            self.asked_to_stop = self.interrupted = self.engine.stays_open = True
            self.engine.handle(StopRequested(message))

    def drain(self, message: str, resume_after_seconds: float = RESUME_AFTER_SECONDS) -> None:
        """Goes down, and leaves the run to be gone on with: everybody is asked to come back after so many seconds.

        Without a store there is nothing to go on with: then the run is ended, as `interrupt` does.
        """
        fork_guard.refuse_in_child()
        if self._stored:
            self.engine.handle(DrainRequested(message, resume_after_seconds))
        else:
            self.interrupt(message)

    async def close(self) -> None:
        """Says NOT_SERVING, lets every stream take its farewell, stops listening, and closes the store.

        Raises:
            RunFileError: the end of the run could not be stored.
        """
        fork_guard.refuse_in_child()
        if self._listener.is_open:
            await self._listener.say_serving(False)
            self.engine.handle(StopRequested("the coordinator was closed"))
            await self._listener.close()
            if self._clock is not None:
                await self._clock
        await self.engine.close_store()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
