"""A real process of one agent: the session over gRPC that ships, and the simulator's learner."""

import asyncio
import logging
from multiprocessing.connection import Connection
from pathlib import Path

from runs import join

from cospan.client.session import machine as session
from cospan.client.session.driver import SessionDriver, SessionHooks
from cospan.client.session.settings import SessionSettings
from cospan.client.session.transport import GrpcTransport
from cospan.core.specification import RunSpecification
from cospan.wire.messages import GradientUpload
from simulator import toy

SEND, LEAVE = "send", "leave"


def run_agent(pipe: Connection, agent: str, instance: str, address: Path) -> None:
    """Takes part until the run is over, or it is told to leave.

    Sends the number of each round that it has learnt; it uploads it when it is told to.
    """
    logging.getLogger("cospan").addHandler(logging.NullHandler())
    asyncio.run(_take_part(pipe, agent, instance, address))


async def _take_part(pipe: Connection, agent: str, instance: str, address: Path) -> None:
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    held: list[session.Learn] = []

    def prepare(_: RunSpecification) -> None:
        driver.post(session.Prepared(join(agent, instance=instance, feature_dim=toy.D)))

    def learn(command: session.Learn) -> None:
        held.append(command)
        pipe.send(command.round)

    def heed() -> None:
        if pipe.recv() == LEAVE:
            driver.leave("a script says so", returning=True)
            return
        command = held.pop()
        contribution = toy.contribution((agent,), command.round, command.basis)
        driver.post(session.GradientReady(GradientUpload(command.round, contribution)))

    hooks = SessionHooks(
        name=lambda: agent,
        prepare=prepare,
        learn=learn,
        conclude=lambda _: over.done() or over.set_result(None),
        fail=lambda failure: over.done() or over.set_exception(failure),
    )
    settings = SessionSettings(progress_timeout_seconds=300.0, min_steps_per_round=1)
    driver = SessionDriver(GrpcTransport(f"@{address}"), hooks, settings)
    driver.start()
    loop.add_reader(pipe.fileno(), heed)
    try:
        await over
    finally:
        loop.remove_reader(pipe.fileno())
        await driver.close()
