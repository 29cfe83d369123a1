"""A coordinator in this process: its engine, its listener, and its end."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float

from cospan.core.specification import RunSpecification
from cospan.server.machine.events import DrainRequested, EndRun, StopRequested, Suspend
from cospan.server.rpc.server import AgentListener, check_listening
from cospan.server.runtime.engine import RETURN_SECONDS, Engine, EngineSettings
from cospan.server.storage.run_folder import store_of
from cospan.server.storage.writer import RunStore
from cospan.server.telemetry.run_status import run_report
from cospan.wire import fork_guard
from cospan.wire.errors import InvalidValueError
from cospan.wire.messages import RunReport
from cospan.wire.security.tls import TlsFiles

log = logging.getLogger(__name__)

RESUME_AFTER_SECONDS = 1.0
"""Agents of a draining coordinator reconnect after this time: about what a restart takes."""


class Coordinator:
    """A coordinator in this process.

    Coordinator(specification, run_folder="run").run()         # until the run is over; or in an event loop:

    async with Coordinator(specification) as coordinator:
        print(coordinator.address)
        end = await coordinator.wait()

    `cospan.client.specify("queues", agents=8)` makes a specification from a workload; the coordinator itself needs
    only its number of features d.
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
        run_folder: Path | str | None = None,
        store: RunStore | None = None,
        tls: TlsFiles | None = None,
        insecure: bool = False,
    ) -> None:
        """Prepares a run; does not listen yet.

        Args:
            specification: of the run.
            host: IPv4 or IPv6 address, host name (all of its addresses are used), or unix:PATH.
            port: TCP port; 0 for any free one.
            start_seconds: longest wait for the first round's agents.
            return_seconds: longest wait, in a resumed run, for the agents of its last round.
            sites: number of sites that can be assigned to agents without one; None for no limit. A function is
                called in a thread when the first agent without a site joins.
            run_folder: where the run is stored: an empty folder, or one that does not exist, for a new run; one
                with a run of this specification that is not over, to resume it. Without it (or `store`) the run is
                lost with this process.
            store: the same for a store that is open already; closed with the coordinator.
            tls: certificate, key and authority for mutual TLS, which authenticates every peer; the files are read
                again when they change. None for no TLS: peers are not authenticated.
            insecure: whether to listen without TLS on an address that other machines reach.

        Raises:
            InvalidValueError: the specification has a value out of range, `host` or `port` is invalid, a file of
                `tls` cannot be used, or there is no TLS and other machines can reach `host`; or the folder holds
                a run that is over or another one.
            CertificateExpiredError: the certificate is not valid now.
            RunFileError: the run folder holds other files; or the store cannot be written to.
        """
        problems = specification.problems()
        if problems:
            raise InvalidValueError("; ".join(problems))
        if run_folder is not None:
            if store is not None:
                raise InvalidValueError("run_folder and store both say where the run is stored; leave out one")
            check_listening(host, port, tls, insecure=insecure)  # before anything is written
            store = store_of(Path(run_folder), specification)
        self.asked_to_stop = False
        """Whether `stop` or `interrupt` was called."""
        self.interrupted = False
        """Whether `interrupt` ended the run."""
        settings = EngineSettings(start_seconds=start_seconds, return_seconds=return_seconds)
        self.engine = Engine(specification, sites=sites, store=store, settings=settings)
        self._listener = AgentListener(self.engine, self.stop, host=host, port=port, tls=tls, insecure=insecure)
        self.door = self._listener.door
        """Admits and counts calls."""
        self.agent_stats = self._listener.agent_stats
        """Statistics of agents that are not part of the machine's state."""
        self._stored = store is not None

    @property
    def address(self) -> str:
        """HOST:PORT, [IPV6]:PORT or unix:PATH to connect to, with the actual port."""
        return self._listener.address

    @property
    def specification(self) -> RunSpecification:
        """Of the run; the first agent that joins sets the fingerprint of its feature map."""
        return self.engine.state.specification

    @property
    def basis(self) -> Float[np.ndarray, "d r"]:
        """B, shape (d, r), after the last closed round."""
        return self.engine.state.basis

    def status(self) -> RunReport:
        """The run status: phase, agents, awaited agents, rounds per second."""
        fork_guard.refuse_in_child()
        return run_report(self.engine.state, self.engine.history, self.engine.now(), self.agent_stats)

    def run(self) -> EndRun | Suspend:
        """Listens until the run is over, and blocks. Ctrl-C tells the agents that it is over; a stored run can be
        resumed then.

        Raises:
            InvalidValueError: the address cannot be bound; or an event loop runs in this thread, as in a notebook.
                Use `await coordinator.run_async()` or `async with coordinator:` there.
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
            try:
                return await self.wait()
            except asyncio.CancelledError:
                if self._stored:
                    self.interrupt("the coordinator's program was interrupted")
                raise

    async def start(self) -> None:
        """Listens.

        Raises:
            InvalidValueError: the address cannot be bound, as when the port is in use.
        """
        await self._listener.open()
        log.info("run %s listens on %s", self.engine.state.config.run_id, self.address)

    async def wait(self) -> EndRun | Suspend:
        """Waits for the end of the run, or of this process' part in it."""
        fork_guard.refuse_in_child()
        await self.engine.ended.wait()
        assert self.engine.end is not None
        return self.engine.end

    def stop(self, message: str = "the coordinator's program has ended it") -> None:
        """Ends the run in order; agents keep what they have learnt. Call it on the event loop's thread."""
        fork_guard.refuse_in_child()
        self.asked_to_stop = True
        self.engine.handle(StopRequested(message))

    def interrupt(self, message: str) -> None:
        """Ends the run as `stop` does, but a stored run can be resumed."""
        if not self.engine.ended.is_set():
            self.asked_to_stop = self.interrupted = self.engine.stays_open = True
            self.engine.handle(StopRequested(message))

    def drain(self, message: str, resume_after_seconds: float = RESUME_AFTER_SECONDS) -> None:
        """Ends this process so that the run can be resumed; agents reconnect after `resume_after_seconds`.

        Without a store the run cannot be resumed, and ends as with `interrupt`.
        """
        fork_guard.refuse_in_child()
        if self._stored:
            self.engine.handle(DrainRequested(message, resume_after_seconds))
        else:
            self.interrupt(message)

    async def close(self) -> None:
        """Stops listening, ends the run for good if it is not over, and closes the store.

        A run that is to be resumed later is left with `interrupt` instead.

        Raises:
            RunFileError: the end of the run could not be stored.
        """
        fork_guard.refuse_in_child()
        await self._listener.close(StopRequested("the coordinator was closed"))
        await self.engine.close_store()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
