"""Networks and peers that break: streams that are cut, black holes, slow rounds, and peers that do not read."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from behaviour.bridge import Bridge
from behaviour.fleets import Interrupted, agents_of, direct, ends, site_with
from runs import RINGS, SECONDS, run, specification, until, upload

from cospan.client.agent import Agent, AgentEnd, ClientSettings
from cospan.client.session import transport
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.method import practical
from cospan.core.specification import RunSpecification
from cospan.server.coordinator import Coordinator
from cospan.wire import errors
from cospan.wire import messages as m

# Faults of the network ----------------------------------------------------------------------------------


def test_a_network_that_breaks_again_and_again_loses_and_doubles_nothing() -> None:
    spec = specification(practical(3), agents=3, rounds=30, session_timeout_seconds=30.0)

    async def broken() -> bytes:
        async with Coordinator(spec) as coordinator, Bridge(coordinator.address) as bridge:
            engine = coordinator.engine
            engine.on_round.append(lambda command: bridge.drop() if command.report.closed_round % 7 == 3 else None)
            agents = [Agent(RINGS, index=0, coordinator=coordinator.address)]
            agents += [Agent(RINGS, index=index, coordinator=bridge.address) for index in (1, 2)]
            finished = await ends(agents)
            assert finished == [AgentEnd("all 30 rounds are done", 30)] * 3
            reports = engine.history.recent(99)
            assert [(r.closed_round, r.contributors) for r in reports] == [(t, 3) for t in range(30)]
            assert dict(engine.state.history.rounds_counted) == {f"site-{index}": 30 for index in range(3)}
            back = {session.agent_ids[0]: session.reconnects for session in engine.state.members.sessions.values()}
            assert back == {"site-0": 0, "site-1": 4, "site-2": 4}
            return engine.state.basis.tobytes()

    assert run(broken()) == direct(spec)[0].tobytes()


def test_a_network_that_stands_still_for_a_while_loses_nothing() -> None:
    spec = specification(rounds=12, session_timeout_seconds=30.0)

    async def paused() -> bytes:
        async with Coordinator(spec) as coordinator, Bridge(coordinator.address) as bridge:
            loop = asyncio.get_running_loop()

            def pause(command: Any) -> None:
                if command.report.closed_round in (2, 6):
                    bridge.pause()
                    loop.call_later(0.2, bridge.resume)

            coordinator.engine.on_round.append(pause)
            assert await ends(agents_of(2, bridge.address)) == [AgentEnd("all 12 rounds are done", 12)] * 2
            assert [session.reconnects for session in coordinator.engine.state.members.sessions.values()] == [0, 0]
            return coordinator.engine.state.basis.tobytes()

    assert run(paused()) == direct(spec)[0].tobytes()


def test_an_agent_that_is_cut_off_for_longer_than_the_bound_is_given_up_and_comes_back() -> None:
    async def cut_off() -> None:
        spec = specification(agents=3, rounds=0, session_timeout_seconds=4.0)
        async with Coordinator(spec) as coordinator, Bridge(coordinator.address) as bridge:
            engine = coordinator.engine
            gone: list[str] = []
            engine.on_note.append(lambda note: gone.extend(note.agent_ids if note.kind == "agent-gone" else ()))
            agents = [*agents_of(2, coordinator.address), Agent(RINGS, index=2, coordinator=bridge.address)]
            running = asyncio.create_task(ends(agents))
            await until(engine, lambda: engine.state.round == 3)
            bridge.pause()
            await until(engine, lambda: "site-2" in engine.state.members.departures)
            assert engine.state.members.departures["site-2"].cause == "it was silent for 4 s"
            alone = engine.state.round
            await until(engine, lambda: engine.state.round > alone + 3)
            assert engine.history.recent(1)[0].contributors == 2
            bridge.resume()
            await until(engine, lambda: "site-2" in engine.state.members.hosts)
            back = engine.state.round
            await until(engine, lambda: engine.state.round > back + 3)
            assert engine.history.recent(1)[0].contributors == 3
            coordinator.stop("enough")
            assert [end.message for end in await running] == ["enough"] * 3
            assert gone == ["site-2"], "the others sent heartbeats while they waited"
            assert (
                engine.state.history.rounds_counted["site-2"]
                < engine.state.history.rounds_counted["site-0"]
                == engine.state.round
            )

    run(cut_off())


def test_an_agent_that_connects_into_a_black_hole_comes_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stream breaks, and the new connection is accepted and never answered."""
    monkeypatch.setattr(transport, "_UNARY_SECONDS", 0.2)
    spec = specification(rounds=12, session_timeout_seconds=30.0)

    async def swallowed() -> bytes:
        async with Coordinator(spec) as coordinator, Bridge(coordinator.address) as bridge:
            engine = coordinator.engine
            running = asyncio.create_task(ends(agents_of(2, bridge.address)))
            await until(engine, lambda: engine.state.round == 4)
            bridge.drop()
            bridge.black_hole()
            swallowed = bridge.connections
            while bridge.connections < swallowed + 4:  # both have tried twice
                bridge.changed.clear()
                await bridge.changed.wait()
            bridge.resume()
            assert await running == [AgentEnd("all 12 rounds are done", 12)] * 2
            return engine.state.basis.tobytes()

    assert run(swallowed()) == direct(spec)[0].tobytes()


def test_an_agent_in_a_black_hole_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_UNARY_SECONDS", 0.2)

    async def swallowed() -> None:
        async with Coordinator(specification(rounds=0)) as coordinator, Bridge(coordinator.address) as bridge:
            agents = agents_of(2, bridge.address, progress_timeout_seconds=1.5)
            running = asyncio.gather(*(agent.run_async() for agent in agents), return_exceptions=True)
            await until(coordinator.engine, lambda: coordinator.engine.state.round == 3)
            bridge.drop()
            bridge.black_hole()
            for outcome in await running:
                assert isinstance(outcome, errors.CoordinatorUnavailableError)
                assert "given up after 1.5 s" in str(outcome)
            bridge.black_hole()
            with pytest.raises(errors.CoordinatorUnavailableError):
                await Agent(
                    RINGS,
                    index=3,
                    coordinator=bridge.address,
                    settings=ClientSettings(progress_timeout_seconds=0.1),
                ).run_async()

    run(swallowed())


def test_an_agent_whose_round_takes_too_long_is_waited_for_once() -> None:
    """It is given up, comes back when its round is done, and takes part again."""

    async def dawdled() -> None:
        release = threading.Event()
        spec = specification(rounds=0, round_timeout_seconds=0.4)
        async with Coordinator(spec) as coordinator:
            engine = coordinator.engine
            slow = Agent(
                site_with(env=Interrupted(7, lambda: bool(release.wait(SECONDS)))),
                index=0,
                coordinator=coordinator.address,
            )
            running = asyncio.create_task(ends([slow, Agent(RINGS, index=1, coordinator=coordinator.address)]))
            await until(engine, lambda: "site-0" in engine.state.members.departures)
            assert engine.state.members.departures["site-0"].cause == "it sent no gradient for 0.4 s"
            notes: list[str] = []
            slow.on_note.append(lambda _, note: notes.append(note))
            alone = engine.state.round
            await until(engine, lambda: engine.state.round >= alone + 20)
            assert "site-0" not in engine.state.members.hosts, "it does not come back before its round is done"
            release.set()
            await until(engine, lambda: "site-0" in engine.state.members.hosts)
            back = engine.state.round
            await until(engine, lambda: engine.state.round > back + 3)
            assert engine.history.recent(1)[0].contributors == 2
            (note,) = notes
            assert "waits for 0.4 s once another agent has sent its gradient" in note
            coordinator.stop("enough")
            assert [end.message for end in await running] == ["enough"] * 2

    run(dawdled())


# The transport alone ------------------------------------------------------------------------------------


@asynccontextmanager
async def fake_server(collaborate: Callable[..., Any]) -> AsyncIterator[str]:
    """A server with one method of one's own."""
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(collaborate)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("cospan.rpc.v1.CoordinatorService", {"Collaborate": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=None)


def test_a_call_that_is_cancelled_from_afar_is_a_broken_stream() -> None:
    """By a proxy, for example. Taken for the end of the reading task it would be a silent hang."""

    async def cancelled() -> None:
        async def collaborate(_requests: object, context: grpc.aio.ServicerContext) -> None:
            await context.read()
            await context.abort(grpc.StatusCode.CANCELLED, "for a test")

        async with fake_server(collaborate) as address:
            stream = await transport.GrpcTransport(address).open(specification())
            await stream.send(m.Heartbeat())
            with pytest.raises(errors.CoordinatorUnavailableError):
                await stream.receive()
            with pytest.raises(errors.CoordinatorUnavailableError):
                await stream.send(m.Heartbeat())
            await stream.close()

    run(cancelled())


def test_a_peer_that_does_not_read_is_a_broken_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender gives up, and the reader hears of it: else the agent would wait for ever."""
    monkeypatch.setattr(transport, "_SEND_SECONDS", 0.2)
    spec = specification(feature_dim=200_000)

    async def deaf() -> None:
        over = asyncio.Event()

        async def collaborate(_requests: object, _context: object) -> None:
            await over.wait()

        async with fake_server(collaborate) as address:
            stream = await transport.GrpcTransport(address).open(spec)
            reading = asyncio.create_task(stream.receive())
            gradient = DenseMatrix(np.ones((200_000, 2)))
            large = m.GradientUpload(0, replace(upload(0).contribution, gradient=gradient))

            async def send() -> None:
                for _ in range(9):
                    await stream.send(large)

            with pytest.raises(errors.CoordinatorUnavailableError):
                await send()
            with pytest.raises(errors.CoordinatorUnavailableError):
                await reading
            await stream.close()
            over.set()

    run(deaf())


class Astray:
    """A transport with a bug of its own."""

    async def describe(self) -> RunSpecification:
        return specification()

    async def open(self, specification: RunSpecification) -> transport.AgentStream:
        raise RuntimeError("a bug")


def test_a_connection_that_fails_unforeseen_is_no_silent_hang() -> None:
    with pytest.raises(errors.CospanError, match="the connection of site-0 failed: RuntimeError: a bug"):
        run(Agent(RINGS, index=0, transport=Astray()).run_async())


def test_who_waits_for_a_message_can_be_cancelled() -> None:
    async def cancelled() -> None:
        async with Coordinator(specification()) as coordinator:
            stream = await transport.GrpcTransport(coordinator.address).open(specification())
            reading = asyncio.create_task(stream.receive())
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await stream.close()

    run(cancelled())
