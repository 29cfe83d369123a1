"""The gRPC server for agents: service, interceptor, health, reflection, limits and address."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.server.admission.auth import server_credentials
from cospan.server.admission.file_limits import connections_allowed
from cospan.server.admission.interceptor import AdmissionInterceptor
from cospan.server.admission.peer_limits import Kind, limit_of_all
from cospan.server.machine.events import DrainRequested, StopRequested
from cospan.server.net.binding import cannot_listen, free, in_use, resolved
from cospan.server.rpc.service import LOOKING, OWN_WAY, CoordinatorService, handlers
from cospan.server.runtime.agent_engine import AgentEngine
from cospan.server.telemetry.agent_stats import AgentStats
from cospan.wire import fork_guard
from cospan.wire.address import Address, parse_host
from cospan.wire.errors import InvalidValueError
from cospan.wire.limits import (
    NO_COMPRESSION,
    max_membership_bytes,
    max_message_bytes,
    max_offer_bytes,
    max_recalled_bytes,
    server_options,
)
from cospan.wire.secure_sums.availability import require_cryptography
from cospan.wire.security.tls import TlsFiles, TlsSource, check_usable

_SERVICE_NAME = pb.DESCRIPTOR.services_by_name["CoordinatorService"].full_name
_FAREWELL_SECONDS = 3.0
_END_SECONDS = 1.0
_JOINABLE_GROUP = 4096
_BIND_SECONDS, _BIND_PAUSE_SECONDS = 3.0, 0.1


def check_listening(host: str, port: int, tls: TlsFiles | None, *, insecure: bool) -> Address:
    """The address of a host and a port that a listener may listen on.

    Raises:
        InvalidValueError: the host or port is invalid, a file of `tls` cannot be used, or there is no TLS and other
            machines can reach the address, unless `insecure` allows that.
        CertificateExpiredError: the certificate is not valid now.
    """
    address = parse_host(host, port)
    if tls is not None:
        check_usable(tls, time.time())
    elif not insecure and not address.is_local:
        raise InvalidValueError(
            f"host is {host}, which other machines can reach, and there is no TLS; pass tls=TlsFiles(certificate, "
            "key, authority), listen on 127.0.0.1, or pass insecure=True if the network is trusted"
        )
    return address


class AgentListener:
    """Listens for the agents of one engine, within the limits of admission control."""

    def __init__(
        self,
        engine: AgentEngine,
        stop: Callable[[str], None],
        *,
        host: str,
        port: int,
        tls: TlsFiles | None,
        insecure: bool = False,
    ) -> None:
        """Does not listen yet.

        Args:
            engine: serves the agents; its specification must be known.
            stop: ends the run; its argument is one sentence that says why.
            host: IPv4 or IPv6 address, host name (all of its addresses are used), or unix:PATH.
            port: TCP port; 0 for any free one.
            tls: certificate, key and authority for mutual TLS; None for no TLS.
            insecure: whether to listen without TLS where other machines reach it.

        Raises:
            InvalidValueError: the host or port is invalid, a file of `tls` cannot be used, or there is no TLS and
                other machines can reach the address; or the package that verifies keys of secure sums is missing.
            CertificateExpiredError: the certificate is not valid now.
        """
        self._engine, self._stop = engine, stop
        self._address = check_listening(host, port, tls, insecure=insecure)
        self._credentials: grpc.ServerCredentials | None = None
        self._tls = None if tls is None else TlsSource(tls)
        if self._tls is not None:
            self._credentials = server_credentials(self._tls)
            if engine.state.specification.secure_sums:
                require_cryptography()
        self.door = AdmissionInterceptor(engine.state.specification.agents, own_way=OWN_WAY, looking=LOOKING)
        """Admits and counts calls."""
        self.agent_stats = AgentStats()
        self._server: grpc.aio.Server | None = None
        self._clock: asyncio.Task[None] | None = None
        self._health = health.aio.HealthServicer()

    @property
    def address(self) -> str:
        """HOST:PORT, [IPV6]:PORT or unix:PATH, with the actual port."""
        return str(self._address)

    async def open(self) -> None:
        """Listens, and reports SERVING.

        Raises:
            InvalidValueError: the address cannot be bound, as when the port is in use.
            ForkedProcessError: this process was forked from one in which Cospan ran.
        """
        fork_guard.refuse_in_child()
        addresses = await self._free_addresses()
        spec = self._engine.state.specification
        largest_group = max(_JOINABLE_GROUP, spec.agents)
        limit = max_message_bytes(spec.feature_dim, spec.rank, largest_group, pooled=spec.pooled_length)
        streams = sum(limit_of_all(kind, spec.agents).at_once for kind in Kind)
        answer = max_recalled_bytes(spec.feature_dim, spec.rank)
        if spec.secure_sums:
            answer = max(answer, limit + max_membership_bytes(spec.agents, largest_group))
            limit += max_offer_bytes(spec.agents)
        options = server_options(limit, connections_allowed(spec.agents), streams, answer_bytes=answer)
        server = grpc.aio.server(options=options, interceptors=(self.door,), compression=NO_COMPRESSION)
        service = CoordinatorService(self._engine, self._stop, self.door, self.agent_stats, self._tls)
        server.add_generic_rpc_handlers((handlers(service),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._credentials is None:  # with TLS every agent could read it, and the .proto files are public anyway
            names = (_SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        ports = [self._bind(server, address) for address in addresses]
        if not self._address.is_unix:
            self._address = replace(self._address, port=ports[0])
        await server.start()
        fork_guard.begin()
        self._server = server
        self._clock = asyncio.create_task(self._engine.keep_time())
        await self._report_health(health_pb2.HealthCheckResponse.SERVING)

    async def _free_addresses(self) -> tuple[Address, ...]:
        """The addresses to bind. A port in use is tried again for some seconds.

        The coordinator that listened there may be ending, or an outgoing connection may have the port as its own.
        """
        deadline = time.monotonic() + _BIND_SECONDS
        while True:
            try:
                return free(await asyncio.to_thread(resolved, self._address, "--host"), "--port")
            except InvalidValueError as failure:
                if not in_use(failure) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_BIND_PAUSE_SECONDS)

    def _bind(self, server: grpc.aio.Server, address: Address) -> int:
        try:
            if self._credentials is None:
                return server.add_insecure_port(str(address))
            return server.add_secure_port(str(address), self._credentials)
        except RuntimeError as failure:  # bound by another program since `free`; gRPC gives no cause
            raise cannot_listen(address, OSError(0, "gRPC cannot bind it"), "--port") from failure

    async def _report_health(self, status: int) -> None:
        for name in ("", _SERVICE_NAME):
            await self._health.set(name, status)

    async def close(self, end: StopRequested | DrainRequested) -> None:
        """Reports NOT_SERVING, ends the run or this process' part in it, and stops listening.

        Streams have time to receive their last message. No effect if it does not listen.
        """
        if self._server is None:
            return
        await self._report_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._engine.handle(end)
        try:
            await self._server.stop(grace=_FAREWELL_SECONDS)
            await self.door.calls_ended(_END_SECONDS)
        finally:
            self._server = None
            fork_guard.end()
        if self._clock is not None:
            await self._clock
