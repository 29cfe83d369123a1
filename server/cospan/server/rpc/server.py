"""The one place that builds a gRPC server for agents: service, interceptor, health, reflection, limits, address."""

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
from cospan.server.net.binding import cannot_listen, free, resolved
from cospan.server.rpc.service import LOOKING, OWN_WAY, AgentServer, CoordinatorService, handlers
from cospan.server.telemetry.agent_stats import AgentStats
from cospan.wire import fork_guard
from cospan.wire.address import Address, parse_host
from cospan.wire.limits import NO_COMPRESSION, max_message_bytes, max_recalled_bytes, server_options
from cospan.wire.security.tls import TlsFiles, TlsSource, check_usable

_SERVICE_NAME = pb.DESCRIPTOR.services_by_name["CoordinatorService"].full_name
_FAREWELL_SECONDS = 3.0
_END_SECONDS = 1.0
_JOINABLE_GROUP = 4096


class AgentListener:
    """Listens for the agents of one engine, and bounds what they may have of it."""

    def __init__(
        self, engine: AgentServer, stop: Callable[[str], None], *, host: str, port: int, tls: TlsFiles | None
    ) -> None:
        """Prepares; nothing listens yet.

        Args:
            engine: whom the agents speak with; its specification must be known.
            stop: ends its run, with a sentence that says why.
            host: to listen on: an IPv4 or IPv6 address, a name, all of whose addresses are taken, or unix:PATH.
            port: to listen on; 0 for any that is free.
            tls: certificate, key and authority for mutual TLS; None for none.

        Raises:
            InvalidValueError: the host is none of these, the port is out of range, or a file of `tls` cannot be
                used.
            CertificateExpiredError: the certificate is not valid now.
        """
        self._engine, self._stop, self._address = engine, stop, parse_host(host, port)
        self._credentials = None if tls is None else _credentials(tls)
        self.door = AdmissionInterceptor(engine.state.specification.agents, own_way=OWN_WAY, looking=LOOKING)
        """Who may come in, and how many were refused."""
        self.agent_stats = AgentStats()
        """What onlookers may know of agents beside the machine's state."""
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()

    @property
    def address(self) -> str:
        """Where to connect to, as HOST:PORT, [IPV6]:PORT or unix:PATH; the real port, where 0 was asked for."""
        return str(self._address)

    @property
    def is_open(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    async def open(self) -> None:
        """Listens.

        Raises:
            InvalidValueError: the address cannot be bound, as when the port is in use; the text says why.
            ForkedProcessError: this process was forked from one in which Cospan ran.
        """
        fork_guard.refuse_in_child()
        addresses = free(await asyncio.to_thread(resolved, self._address, "--host"), "--port")
        spec = self._engine.state.specification
        limit = max_message_bytes(spec.feature_dim, spec.rank, max(_JOINABLE_GROUP, spec.agents))
        streams = sum(limit_of_all(kind, spec.agents).at_once for kind in Kind)
        recalled = max_recalled_bytes(spec.feature_dim, spec.rank)
        options = server_options(limit, connections_allowed(spec.agents), streams, answer_bytes=recalled)
        server = grpc.aio.server(options=options, interceptors=(self.door,), compression=NO_COMPRESSION)
        service = CoordinatorService(self._engine, self._stop, self.door, self.agent_stats)
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

    def _bind(self, server: grpc.aio.Server, address: Address) -> int:
        try:
            if self._credentials is None:
                return server.add_insecure_port(str(address))
            return server.add_secure_port(str(address), self._credentials)
        except RuntimeError as failure:  # it was free a moment ago; of why it is not any more gRPC says nothing
            raise cannot_listen(address, OSError(0, "gRPC cannot bind it"), "--port") from failure

    async def say_serving(self, serving: bool) -> None:
        """Answers health checks with SERVING from now on, or with NOT_SERVING."""
        status = health_pb2.HealthCheckResponse
        for name in ("", _SERVICE_NAME):
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def close(self) -> None:
        """Lets every stream take its farewell, and stops listening."""
        if self._server is not None:
            try:
                await self._server.stop(grace=_FAREWELL_SECONDS)
                await self.door.calls_ended(_END_SECONDS)
            finally:
                self._server = None
                fork_guard.end()


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    check_usable(tls, time.time())
    return server_credentials(TlsSource(tls))
