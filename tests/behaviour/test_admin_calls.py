"""Calls of observers and administrators: who may read, stop a run, and ask for its health."""

from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from behaviour.certificates import Certificates
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from runs import RINGS, D, run, specification, until

from cospan.cli.processes.admin_client import fetch_run, stop_run, watch_rounds
from cospan.client.agent import Agent
from cospan.client.session.connection import open_channel
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1.coordinator_service_pb2_grpc import CoordinatorServiceStub
from cospan.server.coordinator import Coordinator
from cospan.wire import errors
from cospan.wire import messages as m
from cospan.wire.security.identity import ADMIN, OBSERVER
from cospan.wire.security.tls import TlsFiles, TlsSource


@asynccontextmanager
async def channel_to(coordinator: Coordinator, tls: TlsFiles) -> Any:
    async with open_channel(coordinator.address, [], TlsSource(tls)) as channel:
        yield channel


def test_reading_is_for_observers_and_stopping_for_administrators(certs: Certificates) -> None:
    async def called() -> None:
        async with Coordinator(specification(agents=1, rounds=0), tls=certs.coordinator()) as coordinator:
            address, agent = coordinator.address, certs.agent(0)
            admin, observer = certs.issue("admin", ADMIN), certs.issue("observer", OBSERVER)
            (learner,) = [Agent(RINGS, index=0, coordinator=address, tls=agent)]
            async with learner:
                await until(coordinator.engine, lambda: coordinator.engine.state.round > 3)
                for refused in (agent, certs.files("coordinator")):
                    with pytest.raises(errors.AdminRequiredError, match="this one is for cospan:"):
                        await fetch_run(address, refused)
                    with pytest.raises(errors.AdminRequiredError):
                        await first_round(address, refused)
                    with pytest.raises(grpc.aio.AioRpcError) as no_basis:
                        await basis_of(coordinator, refused)
                    assert no_basis.value.code() is grpc.StatusCode.PERMISSION_DENIED
                    with pytest.raises(errors.AdminRequiredError):
                        await stop_run(address, "no reason", refused)
                for allowed in (observer, admin):
                    assert (await fetch_run(address, allowed)).stamp.round > 3
                    assert (await first_round(address, allowed)).contributors == 1
                    assert (await basis_of(coordinator, allowed)).basis.rows == D
                with pytest.raises(errors.AdminRequiredError, match="a certificate for cospan:admin; this"):
                    await stop_run(address, "no reason", observer)
                assert not coordinator.asked_to_stop
                stamp = await stop_run(address, "the plant is shut down", admin)
                end = await learner.wait()
            assert end.message == "it was stopped by cospan:admin: the plant is shut down"
            assert stamp.round == coordinator.engine.state.round
            assert coordinator.asked_to_stop
            assert (await stop_run(address, "", admin)).round == stamp.round, "a run that is over stays as it is"

    run(called())


async def basis_of(coordinator: Coordinator, tls: TlsFiles) -> pb.GetBasisResponse:
    async with channel_to(coordinator, tls) as channel:
        return await CoordinatorServiceStub(channel).GetBasis(pb.GetBasisRequest())


async def first_round(address: str, tls: TlsFiles) -> m.RoundReport:
    reports = watch_rounds(address, from_round=0, include_basis=False, message_bytes=1 << 20, tls=tls)
    try:
        return await anext(reports)
    finally:
        await reports.aclose()  # type: ignore[attr-defined]


def test_without_tls_this_machine_may_stop_a_run() -> None:
    async def stopped() -> None:
        async with Coordinator(specification(rounds=0)) as coordinator:
            with pytest.raises(errors.InvalidMessageError, match="cause has 513 characters; it may have 512"):
                await stop_run(coordinator.address, "x" * 513)
            await stop_run(coordinator.address, "")
            end = await coordinator.wait()
            assert end.message == "it was stopped by a peer at 127.0.0.1 without a certificate"

    run(stopped())


def test_health_is_for_everybody_with_a_certificate_and_reflection_for_nobody(certs: Certificates) -> None:
    async def asked() -> None:
        async with Coordinator(specification(), tls=certs.coordinator()) as coordinator:
            for tls in (certs.agent(0), certs.files("coordinator")):
                async with channel_to(coordinator, tls) as channel:
                    stub = health_pb2_grpc.HealthStub(channel)
                    answer = await stub.Check(health_pb2.HealthCheckRequest())
                    assert answer.status == health_pb2.HealthCheckResponse.SERVING
                    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
                    request = reflection_pb2.ServerReflectionRequest(list_services="")
                    with pytest.raises(grpc.aio.AioRpcError) as refusal:
                        await anext(aiter(reflection.ServerReflectionInfo(iter([request]))))
                    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED

    run(asked())
