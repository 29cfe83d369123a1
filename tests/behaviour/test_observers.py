"""What observers of a coordinator see: reports, rounds, health, and what may be asked for by reflection."""

import asyncio
import threading
from typing import Any

import grpc
import grpc.aio
import numpy as np
from behaviour.fleets import CALLS, Interrupted, agents_of, channel_to, ends, get_run, site_with
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from runs import RINGS, SECONDS, run, specification, until

from cospan.client.agent import Agent, ClientSettings
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.server.coordinator import Coordinator
from cospan.wire import messages as m
from cospan.wire.codec.matrices import decode_matrix
from cospan.wire.codec.reports import decode_round_report


def test_an_agent_that_is_told_to_shares_its_td_error_and_nothing_else_changes() -> None:
    async def watched(*shares: bool) -> tuple[np.ndarray, list[Agent], m.RunReport]:
        async with Coordinator(specification(rounds=6)) as coordinator, channel_to(coordinator.address) as channel:
            agents = [
                Agent(
                    RINGS,
                    index=index,
                    coordinator=coordinator.address,
                    settings=ClientSettings(share_td_error=share),
                )
                for index, share in enumerate(shares)
            ]
            await ends(agents)
            return coordinator.engine.state.basis, agents, await get_run(channel)

    basis, agents, report = run(watched(True, False))
    learner = agents[0].learner
    assert learner is not None
    told = learner.learning_curve.mean_squared_td_error[-1] ** 0.5
    assert [agent.td_error for agent in report.agents] == [told, None]
    assert (basis == run(watched(False, False))[0]).all()


def test_observers_are_told_the_truth() -> None:
    async def watched() -> None:
        async with Coordinator(specification(rounds=6)) as coordinator, channel_to(coordinator.address) as channel:
            engine = coordinator.engine
            before = await get_run(channel)
            assert (before.phase, before.agents, before.stamp.round) == (m.RunPhase.WAITING, (), 0)
            watching = asyncio.create_task(watch(channel, from_round=0, include_basis=True))
            finished = await ends(agents_of(2, coordinator.address))
            assert len(finished) == 2
            after = await get_run(channel)
            assert (after.phase, after.finish_cause) == (m.RunPhase.FINISHED, m.FinishCause.ROUNDS_REACHED)
            assert (after.stamp, after.stamp.round) == (engine.state.stamp, 6)
            assert after.specification == engine.state.specification
            assert [(a.agent_id, a.rounds_counted, a.awaited) for a in after.agents] == [
                ("site-0", 6, False),
                ("site-1", 6, False),
            ]
            assert after.rounds_per_second > 0.0
            answer = pb.GetBasisResponse.FromString(await channel.unary_unary(CALLS + "GetBasis")(b""))
            assert decode_matrix(answer.basis, "basis").tobytes() == engine.state.basis.tobytes()
            assert answer.stamp.round == 6
            reports = await watching
            assert [report.closed_round for report in reports] == list(range(6))
            assert [report.finished for report in reports] == [False] * 5 + [True]
            assert reports[-1].basis is not None
            assert reports[-1].basis.tobytes() == engine.state.basis.tobytes()
            later = await watch(channel, from_round=4, include_basis=False)
            assert [(report.closed_round, report.basis) for report in later] == [(4, None), (5, None)]

    run(watched())


async def watch(channel: grpc.aio.Channel, **options: Any) -> list[m.RoundReport]:
    request = pb.WatchRoundsRequest(**options).SerializeToString()
    call = channel.unary_stream(CALLS + "WatchRounds")(request)
    return [decode_round_report(pb.WatchRoundsResponse.FromString(answer)) async for answer in call]


def test_the_report_of_a_run_that_goes_on() -> None:
    async def watched() -> None:
        release = threading.Event()
        async with Coordinator(specification(rounds=0)) as coordinator, channel_to(coordinator.address) as channel:
            engine = coordinator.engine
            slow = site_with(env=Interrupted(10, lambda: bool(release.wait(SECONDS))))
            agents = [
                Agent(slow, index=0, coordinator=coordinator.address),
                Agent(RINGS, index=1, coordinator=coordinator.address),
            ]
            running = asyncio.create_task(ends(agents))
            await until(engine, lambda: engine.state.round == 3)
            report = await get_run(channel)
            assert (report.phase, report.stamp.round) == (m.RunPhase.COLLECTING, 3)
            assert {agent.agent_id: agent.rounds_counted for agent in report.agents} == {"site-0": 3, "site-1": 3}
            assert report.agents[0].awaited, "it is said whom the round waits for"
            assert all(agent.phase is m.AgentPhase.CONNECTED for agent in report.agents)
            release.set()
            coordinator.stop("enough")
            await running

    run(watched())


def test_health_and_reflection() -> None:
    service_name = "cospan.rpc.v1.CoordinatorService"

    async def asked() -> None:
        coordinator = Coordinator(specification())
        await coordinator.start()
        async with channel_to(coordinator.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", service_name):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            (answer,) = [reply async for reply in reflection.ServerReflectionInfo(iter([request]))]
            names = {entry.name for entry in answer.list_services_response.service}
            assert {service_name, "grpc.health.v1.Health"} <= names
            watching = health.Watch(health_pb2.HealthCheckRequest(service=service_name))
            assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
            closing = asyncio.create_task(coordinator.close())
            assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watching.cancel()
            await closing

    run(asked())
