"""A relay in this process: its engine, its server, and its orderly end."""

import asyncio
import logging
from types import TracebackType
from typing import Self

from cospan.client.session.transport import GrpcTransport, Transport
from cospan.relay.engine import RelayEngine, RelaySettings
from cospan.server.admission.interceptor import AdmissionInterceptor
from cospan.server.machine.events import DrainRequested, EndRun, Suspend
from cospan.server.rpc.server import AgentListener
from cospan.wire import fork_guard
from cospan.wire.address import parse_host
from cospan.wire.limits import MAX_GROUP
from cospan.wire.security.tls import TlsFiles

log = logging.getLogger(__name__)


class Relay:
    """A relay in this process.

    async with Relay("coordinator.example:50051", host="127.0.0.1", port=0) as relay:
        print(relay.address)
        end = await relay.wait()
    """

    def __init__(
        self,
        upstream: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: TlsFiles | None = None,
        upstream_tls: TlsFiles | None = None,
        transport: Transport | None = None,
        settings: RelaySettings | None = None,
    ) -> None:
        """Prepares; nothing is connected yet, and nothing listens.

        Args:
            upstream: HOST:PORT, [IPV6]:PORT or unix:PATH of the coordinator, or of another relay.
            host: to listen on: an IPv4 or IPv6 address, a name, all of whose addresses are taken, or unix:PATH.
            port: to listen on; 0 for any that is free.
            tls: certificate, key and authority for mutual TLS with its agents; None for no TLS.
            upstream_tls: the same with the coordinator; the certificate must speak for all of its agents.
            transport: how to reach the coordinator; gRPC to `upstream` where left out.
            settings: whom it waits for, and how long; the defaults where left out.

        Raises:
            InvalidValueError: an address is none, or a file of `upstream_tls` cannot be used.
        """
        self._transport = transport or GrpcTransport(upstream, group_size=MAX_GROUP, tls=upstream_tls)
        self._host, self._port, self._tls = host, port, tls
        self._asked_for = parse_host(host, port)
        self._settings = settings or RelaySettings()
        self.engine: RelayEngine
        self._listener: AgentListener | None = None
        self._clock: asyncio.Task[None] | None = None

    @property
    def door(self) -> AdmissionInterceptor:
        """Who may come in, and how many were refused; there once it listens."""
        assert self._listener is not None
        return self._listener.door

    @property
    def address(self) -> str:
        """HOST:PORT to connect to; the real port, where 0 was asked for."""
        return str(self._asked_for) if self._listener is None else self._listener.address

    async def start(self) -> None:
        """Asks the coordinator what the run is, and listens.

        Raises:
            CospanError: the coordinator cannot be reached, its run takes no relays or has too few steps a round,
                or the address cannot be bound.
        """
        fork_guard.refuse_in_child()
        self.engine = RelayEngine(self._transport, self._settings)
        try:
            await self.engine.begin()
            self._listener = AgentListener(self.engine, self.stop, host=self._host, port=self._port, tls=self._tls)
            await self._listener.open()
        except BaseException:
            await self.engine.close()
            raise
        self._clock = asyncio.create_task(self.engine.keep_time())
        await self._listener.say_serving(True)
        log.info("the relay listens on %s", self.address)

    async def wait(self) -> EndRun | Suspend:
        """Waits for the end of the run, or for this relay's part in it.

        Raises:
            CospanError: the relay cannot go on.
        """
        fork_guard.refuse_in_child()
        await self.engine.ended.wait()
        if self.engine.failure is not None:
            raise self.engine.failure
        assert self.engine.end is not None
        return self.engine.end

    def stop(self, message: str) -> None:
        """Leaves the run for good; it continues without the relay's agents, unless they join elsewhere."""
        fork_guard.refuse_in_child()
        self.engine.leave(message)

    def drain(self, message: str) -> None:
        """Goes down, to be started again: the coordinator waits for its agents up to the session timeout."""
        fork_guard.refuse_in_child()
        self.engine.handle(DrainRequested(message, 0.0))

    async def close(self) -> None:
        """Says NOT_SERVING, lets every stream take its farewell, and stops listening."""
        fork_guard.refuse_in_child()
        if self._listener is not None and self._listener.is_open:
            await self._listener.say_serving(False)
            self.engine.handle(DrainRequested("the relay was closed", 0.0))
            await self._listener.close()
            if self._clock is not None:
                await self._clock
        await self.engine.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
