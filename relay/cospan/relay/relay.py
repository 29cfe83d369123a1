"""A relay in this process: its engine, its listener, and its end."""

import logging
from typing import Self

from cospan.client.session.coordinator_address import AddressSource
from cospan.client.session.transport import GrpcTransport, Transport
from cospan.relay.engine import RelayEngine, RelaySettings
from cospan.server.admission.interceptor import AdmissionInterceptor
from cospan.server.machine.events import DrainRequested, EndRun, Suspend
from cospan.server.rpc.server import AgentListener, check_listening
from cospan.server.telemetry.agent_stats import AgentStats
from cospan.wire import fork_guard
from cospan.wire.limits import MAX_GROUP
from cospan.wire.security.tls import TlsFiles

log = logging.getLogger(__name__)


class Relay:
    """A relay in this process.

    async with Relay("coordinator.example:15051", host="127.0.0.1", port=0) as relay:
        print(relay.address)
        end = await relay.wait()
    """

    def __init__(
        self,
        upstream: AddressSource,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: TlsFiles | None = None,
        upstream_tls: TlsFiles | None = None,
        transport: Transport | None = None,
        settings: RelaySettings | None = None,
        insecure: bool = False,
    ) -> None:
        """Connects to nothing yet, and does not listen.

        Args:
            upstream: HOST:PORT, [IPV6]:PORT, unix:PATH, @FILE or a function, as of an agent: of the coordinator, or
                of another relay.
            host: IPv4 or IPv6 address, host name (all of its addresses are used), or unix:PATH.
            port: TCP port; 0 for any free one.
            tls: certificate, key and authority for mutual TLS with its agents; None for no TLS.
            upstream_tls: the same with the coordinator; the certificate must name all of its agents.
            transport: to the coordinator; gRPC to `upstream` by default.
            settings: of the relay.
            insecure: whether to listen without TLS on an address that other machines reach.

        Raises:
            InvalidValueError: an address is invalid, a file of `upstream_tls` cannot be used, or there is no TLS
                and other machines can reach `host`.
        """
        self._transport = transport or GrpcTransport(upstream, group_size=MAX_GROUP, tls=upstream_tls)
        self._host, self._port, self._tls = host, port, tls
        self._asked_for = check_listening(host, port, tls, insecure=insecure)
        self._insecure = insecure
        self._settings = settings or RelaySettings()
        self.engine: RelayEngine
        self._listener: AgentListener | None = None

    @property
    def door(self) -> AdmissionInterceptor:
        """Admits and counts calls; exists once it listens."""
        assert self._listener is not None
        return self._listener.door

    @property
    def agent_stats(self) -> AgentStats:
        """What its agents report beside their gradients."""
        assert self._listener is not None
        return self._listener.agent_stats

    @property
    def address(self) -> str:
        """HOST:PORT to connect to; with the actual port once it listens."""
        return str(self._asked_for) if self._listener is None else self._listener.address

    async def start(self) -> None:
        """Requests the specification from the coordinator, and listens.

        Raises:
            CospanError: the coordinator cannot be reached, its run does not support relays or has too few steps a
                round, or the address cannot be bound.
        """
        fork_guard.refuse_in_child()
        self.engine = RelayEngine(self._transport, self._settings)
        try:
            await self.engine.begin()
            self._listener = AgentListener(
                self.engine, self.stop, host=self._host, port=self._port, tls=self._tls, insecure=self._insecure
            )
            await self._listener.open()
        except BaseException:
            await self.engine.close()
            raise
        log.info("the relay listens on %s", self.address)

    async def wait(self) -> EndRun | Suspend:
        """Waits for the end of the run, or of this relay's part in it.

        Raises:
            CospanError: the relay has failed.
        """
        fork_guard.refuse_in_child()
        await self.engine.ended.wait()
        if self.engine.failure is not None:
            raise self.engine.failure
        assert self.engine.end is not None
        return self.engine.end

    def stop(self, message: str) -> None:
        """Leaves the run for good; it continues without the relay's agents unless they join elsewhere."""
        fork_guard.refuse_in_child()
        self.engine.leave(message)

    def drain(self, message: str) -> None:
        """Ends this process for a restart: the coordinator waits for its agents up to the session timeout."""
        fork_guard.refuse_in_child()
        self.engine.handle(DrainRequested(message, 0.0))

    async def close(self) -> None:
        """Stops listening, and ends the session with the coordinator."""
        fork_guard.refuse_in_child()
        if self._listener is not None:
            await self._listener.close(DrainRequested("the relay was closed", 0.0))
        await self.engine.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
