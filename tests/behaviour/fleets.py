"""Fleets of agents over real gRPC, as tests of several files start them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import numpy as np
from runs import RINGS, Ring, States, announced, coin, ring_site

from cospan.client.agent import Agent, AgentEnd, ClientSettings
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.workload import FeatureMap, Site, Workload
from cospan.core.aggregation.basis_update import next_basis
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire import messages as m
from cospan.wire.codec.reports import decode_run_report

CALLS = "/cospan.rpc.v1.CoordinatorService/"


def agents_of(count: int, address: str, **options: Any) -> list[Agent]:
    settings = ClientSettings(**options)
    return [Agent(RINGS, index=index, coordinator=address, settings=settings) for index in range(count)]


async def ends(agents: list[Agent]) -> list[AgentEnd]:
    return await asyncio.gather(*(agent.run_async() for agent in agents))


def direct(spec: RunSpecification) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The same run in one loop over the functions of the core: its last basis, and the agents' weights."""
    spec = replace(spec, feature_fingerprint="map-1")
    names = sorted(f"site-{index}" for index in range(spec.agents))
    learners = {
        name: SiteLearner(ring_site(index, spec.seed), spec, name=name, index=index)
        for name in names
        for index in [int(name.removeprefix("site-"))]
    }
    (basis, covariance), step_memory = announced(spec), None
    for number in range(spec.rounds):
        contributions = [learners[name].learn(number, basis, covariance).contribution for name in names]
        move = next_basis(basis, contributions, spec.method, number, step_memory, head_covariance=covariance)
        basis, covariance, step_memory = move.basis, move.head_covariance, move.step_memory
    return basis, {name: learner.weights.mean for name, learner in learners.items()}


def site_with(env: Ring | None = None, features: FeatureMap | None = None) -> Workload:
    """The rings, with another environment or another feature map."""

    def make(index: int, _seed: int) -> Site:
        return Site(env=env or Ring(index), features=features or States(), policy=coin)

    return Workload(make_site=make, name="rings")


class Interrupted(Ring):
    """A ring whose `number`-th step does something first."""

    def __init__(self, number: int, what: Callable[[], None]) -> None:
        super().__init__(0)
        self._number, self._what, self._steps = number, what, 0

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        if self._steps == self._number:
            self._what()
        return super().step(action)


@asynccontextmanager
async def channel_to(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield channel


async def get_run(channel: grpc.aio.Channel) -> m.RunReport:
    answer = await channel.unary_unary(CALLS + "GetRun")(b"")
    return decode_run_report(pb.GetRunResponse.FromString(answer))
