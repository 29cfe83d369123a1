"""The one place that builds the server: engine, service, health, reflection, address, and its orderly end."""

import asyncio
import logging
import time
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.server.access import server_credentials
from cospan.server.descriptors import connections_allowed
from cospan.server.doorkeeper import Doorkeeper
from cospan.server.engine import Engine
from cospan.server.events import DrainRequested, EndRun, StopRequested, Suspend
from cospan.server.quotas import Kind, quota_of_all
from cospan.server.service import LOOKING, OWN_WAY, CoordinatorService, handlers
from cospan.server.store import RunStore
from cospan.wire.errors import InvalidValueError
from cospan.wire.limits import NO_COMPRESSION, max_message_bytes, server_options
from cospan.wire.tls import TlsFiles, TlsSource, check_usable

log = logging.getLogger(__name__)

_SERVICE_NAME = pb.DESCRIPTOR.services_by_name["CoordinatorService"].full_name
_FAREWELL_SECONDS = 3.0
_END_SECONDS = 1.0
RESUME_AFTER_SECONDS = 1.0
"""Agents of a coordinator that goes down try again after so long: about as long as one takes to start."""
_JOINABLE_GROUP = 4096


class Coordinator:
    """A coordinator in this process.

    async with Coordinator(specification, host="127.0.0.1", port=0) as coordinator:
        print(coordinator.address)
        end = await coordinator.wait()
    """

    def __init__(
        self,
        specification: RunSpecification,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        start_seconds: float = 600.0,
        sites: int | None = None,
        store: RunStore | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        """Prepares a run; nothing listens yet.

        Args:
            specification: of the run.
            host: address to listen on.
            port: to listen on; 0 for any that is free.
            start_seconds: the longest time to wait for the first round's agents.
            sites: how many sites can be given out to agents that bring none; None where there is no limit.
            store: where the run is stored, and gone on with; it is closed with the coordinator. A run without one
                is lost with this process.
            tls: certificate, key and authority for mutual TLS: peers are who their certificates say. The files are
                read again when they change. None for no TLS, where everybody is who it says it is.

        Raises:
            InvalidValueError: the specification has a value out of range; or a file of `tls` cannot be used.
            CertificateExpiredError: the certificate is not valid now.
            RunFileError: the store cannot be written to.
        """
        problems = specification.problems()
        if problems:
            raise InvalidValueError("; ".join(problems))
        self.asked_to_stop = False
        """Whether somebody has asked for the end of the run."""
        self._credentials = None if tls is None else _credentials(tls)
        self.engine = Engine(specification, start_seconds=start_seconds, sites=sites, store=store)
        self.door = Doorkeeper(self.engine.state.specification.agents, own_way=OWN_WAY, looking=LOOKING)
        """Who may come in, and how many were refused."""
        self._host, self._port, self._stored = host, port, store is not None
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self._clock: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """HOST:PORT to connect to; the real port, where 0 was asked for."""
        return f"{self._host}:{self._port}"

    async def start(self) -> None:
        """Listens.

        Raises:
            InvalidValueError: the address cannot be bound, as when the port is in use.
        """
        spec = self.engine.state.specification
        limit = max_message_bytes(spec.feature_dim, spec.rank, max(_JOINABLE_GROUP, spec.agents))
        streams = sum(quota_of_all(kind, spec.agents).at_once for kind in Kind)
        options = server_options(limit, connections_allowed(spec.agents), streams)
        server = grpc.aio.server(options=options, interceptors=(self.door,), compression=NO_COMPRESSION)
        server.add_generic_rpc_handlers((handlers(CoordinatorService(self.engine, self.stop, self.door)),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._credentials is None:  # with TLS every agent could read it, and the .proto files are public anyway
            names = (_SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        try:
            self._port = self._bind(server)
        except RuntimeError as failure:
            raise InvalidValueError(
                f"cannot listen on {self.address}; the port may be in use: choose another with --port"
            ) from failure
        await server.start()
        self._server = server
        self._clock = asyncio.create_task(self.engine.keep_time())
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        log.info("run %s listens on %s", self.engine.state.run_id, self.address)

    def _bind(self, server: grpc.aio.Server) -> int:
        if self._credentials is None:
            return server.add_insecure_port(f"{self._host}:{self._port}")
        return server.add_secure_port(f"{self._host}:{self._port}", self._credentials)

    async def wait(self) -> EndRun | Suspend:
        """Waits for the end of the run, or for this coordinator's part in it."""
        await self.engine.ended.wait()
        assert self.engine.end is not None
        return self.engine.end

    def stop(self, message: str) -> None:
        """Ends the run in order: everybody is told, what was learnt stays."""
        self.asked_to_stop = True
        self.engine.handle(StopRequested(message))

    def drain(self, message: str, resume_after_seconds: float = RESUME_AFTER_SECONDS) -> None:
        """Goes down, and leaves the run to be gone on with: everybody is asked to come back after so many seconds.

        Without a store there is nothing to go on with: then the run is ended, as `stop` does.
        """
        if self._stored:
            self.engine.handle(DrainRequested(message, resume_after_seconds))
        else:
            self.stop(message)

    async def close(self) -> None:
        """Says NOT_SERVING, lets every stream take its farewell, stops listening, and closes the store.

        Raises:
            RunFileError: the end of the run could not be stored.
        """
        if self._server is not None:
            await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
            self.engine.handle(StopRequested("the coordinator was closed"))
            await self._server.stop(grace=_FAREWELL_SECONDS)
            await self.door.calls_ended(_END_SECONDS)
            if self._clock is not None:
                await self._clock
            self._server = None
        await self.engine.close_store()

    async def _set_health(self, status: "health_pb2.HealthCheckResponse.ServingStatus.ValueType") -> None:
        for name in ("", _SERVICE_NAME):
            await self._health.set(name, status)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    check_usable(tls, time.time())
    return server_credentials(TlsSource(tls))
