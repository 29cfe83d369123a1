"""A coordinator and its agents over real gRPC on the loopback: whole runs, refusals, faults, and observers."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from behaviour.bridge import Bridge
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from runs import RINGS, D, R, Ring, States, coin, join, ring_site, run, specification, until, upload

from cospan.client.agent import Agent, AgentEnd, ClientSettings
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.session import transport
from cospan.client.workload import FeatureMap, Site, Workload
from cospan.core.aggregation.basis_update import next_basis
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.method import Aggregation, Method, compact, paper, practical
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.server.coordinator import Coordinator
from cospan.server.rpc import service
from cospan.wire import errors
from cospan.wire import messages as m
from cospan.wire.codec.matrices import decode_matrix
from cospan.wire.codec.messages import encode_agent_message
from cospan.wire.codec.reports import decode_round_report, decode_run_report

METHODS = {
    "paper": paper(3),
    "practical": practical(3),
    "warm paper": replace(paper(3), warm_up_rounds=2),
    "warm practical": replace(practical(3), warm_up_rounds=3),
    "warm compact": replace(compact(3), warm_up_rounds=2),
    "clipped": replace(practical(3), aggregation=Aggregation.CLIPPED),
    "trimmed": replace(compact(3), aggregation=Aggregation.TRIMMED),
    "geometric median": replace(practical(3), aggregation=Aggregation.GEOMETRIC_MEDIAN, warm_up_rounds=2),
}
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
    basis, step_memory = spec.initial_basis(), None
    for number in range(spec.rounds):
        contributions = [learners[name].learn(number, basis).contribution for name in names]
        move = next_basis(basis, contributions, spec.method, number, step_memory)
        basis, step_memory = move.basis, move.step_memory
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


# Whole runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_the_same_bits_as_in_one_loop_and_again(name: str) -> None:
    """Over the network, over it again, and in one loop without it: the same bits, for basis and heads."""
    spec = specification(METHODS[name], agents=11, rounds=6)

    async def networked() -> tuple[bytes, dict[str, bytes], list[AgentEnd]]:
        async with Coordinator(spec) as coordinator:
            agents = agents_of(11, coordinator.address)
            finished = await ends(agents)
            end = await coordinator.wait()
            assert (end.cause, end.message) == (m.FinishCause.ROUNDS_REACHED, "all 6 rounds are done")
            reports = coordinator.engine.history.recent(99)
            assert [(report.closed_round, report.contributors) for report in reports] == [(t, 11) for t in range(6)]
            weights = {agent.agent_id: agent.weights.tobytes() for agent in agents}
            return coordinator.engine.state.basis.tobytes(), weights, finished

    basis, weights = direct(spec)
    for _ in range(2):
        bits, learnt, finished = run(networked())
        assert bits == basis.tobytes()
        assert learnt == {agent: vector.tobytes() for agent, vector in weights.items()}
        assert finished == [AgentEnd("all 6 rounds are done", 6)] * 11


def test_an_agent_in_the_background_of_a_program(tmp_path: Path) -> None:
    async def program() -> None:
        async with Coordinator(specification(agents=1, rounds=5)) as coordinator:
            (agent,) = agents_of(1, coordinator.address)
            async with agent:
                end = await agent.wait()
            assert end.rounds == 5
        agent.save(tmp_path / "site-0.npz")
        assert agent.value(2) == agent.weights[1]
        assert agent.gain != 0.0

    run(program())
    assert (tmp_path / "site-0.npz").exists()


def test_an_agent_that_has_learnt_nothing_says_so(tmp_path: Path) -> None:
    agent = Agent(RINGS, index=0)
    for ask in (lambda: agent.gain, lambda: agent.value(1), lambda: agent.save(tmp_path / "a.npz")):
        with pytest.raises(errors.InvalidValueError, match="site-0 has learnt nothing yet"):
            ask()


def test_wait_is_for_an_agent_in_the_background() -> None:
    with pytest.raises(errors.InvalidValueError, match="async with"):
        run(Agent(RINGS, index=0).wait())


def test_the_name_of_an_agent_is_checked_before_anything_else() -> None:
    with pytest.raises(errors.InvalidValueError, match=r"'\.\./x'"):
        Agent(RINGS, index=0, agent_id="../x")


# Joining and leaving ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "text"),
    [
        (States(dim=7), "dimension 7, those of the run 4"),
        (States(fingerprint="map-2"), "'map-2', that of the run 'map-1'"),
    ],
)
def test_another_feature_map_is_refused(features: FeatureMap, text: str) -> None:
    async def refused() -> None:
        async with Coordinator(specification(feature_fingerprint="map-1")) as coordinator:
            agent = Agent(site_with(features=features), index=0, coordinator=coordinator.address)
            with pytest.raises(errors.FeatureMismatchError, match=text):
                await agent.run_async()
            assert not coordinator.engine.state.members.hosts

    run(refused())


def test_a_name_that_a_live_agent_has_is_taken() -> None:
    async def refused() -> None:
        async with Coordinator(specification()) as coordinator:
            first, second = (
                Agent(
                    RINGS,
                    index=index,
                    agent_id="twin",
                    coordinator=coordinator.address,
                    settings=ClientSettings(progress_timeout_seconds=2.0),
                )
                for index in (0, 1)
            )
            async with first:
                await until(coordinator.engine, lambda: bool(coordinator.engine.state.members.hosts))
                with pytest.raises(errors.AgentIdTakenError, match="agent 'twin' is hosted by another process"):
                    await second.run_async()
                assert list(coordinator.engine.state.members.hosts) == ["twin"]

    run(refused())


def test_an_agent_that_leaves_is_not_waited_for() -> None:
    async def left() -> None:
        async with Coordinator(specification(agents=3, rounds=20)) as coordinator:
            agents = agents_of(3, coordinator.address)
            loop = asyncio.get_running_loop()

            def leave(agent: Agent, number: int) -> None:
                if number == 5:
                    loop.call_soon_threadsafe(agent.stop, "its shift is over")

            agents[1].on_round.append(leave)
            finished = await ends(agents)
            assert [end.message for end in finished] == [
                "all 20 rounds are done",
                "its shift is over",
                "all 20 rounds are done",
            ]
            state = coordinator.engine.state
            gone = state.members.departures["site-1"]
            assert gone.cause == "it left: its shift is over"
            assert gone.round in (5, 6, 7)
            counts = [report.contributors for report in coordinator.engine.history.recent(99)]
            counted = state.history.rounds_counted["site-1"]
            assert counts == [3] * counted + [2] * (20 - counted)

    run(left())


def failure() -> None:
    raise ZeroDivisionError("no load")


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (failure, "environment or policy of site-0 raised ZeroDivisionError in step 9: no load"),
        (lambda: sys.exit(3), "the environment or policy of site-0 raised SystemExit in step 9: 3"),
    ],
)
def test_an_agent_whose_environment_raises_leaves_and_the_others_go_on(what: Callable[[], None], text: str) -> None:
    async def failed() -> None:
        async with Coordinator(specification(rounds=12)) as coordinator:
            broken = Agent(site_with(env=Interrupted(10, what)), index=0, coordinator=coordinator.address)
            sound = Agent(RINGS, index=1, coordinator=coordinator.address)
            outcomes = await asyncio.gather(broken.run_async(), sound.run_async(), return_exceptions=True)
            assert isinstance(outcomes[0], errors.WorkloadBehaviourError)
            assert text in str(outcomes[0])
            assert outcomes[1] == AgentEnd("all 12 rounds are done", 12)
            gone = coordinator.engine.state.members.departures["site-0"]
            # The text may show an observation or a reward, so only the kind of failure is told.
            assert (gone.round, gone.cause) == (
                3,
                "it left: it failed (WORKLOAD_BEHAVIOUR); its own output says how",
            )
            counts = [report.contributors for report in coordinator.engine.history.recent(99)]
            assert counts == [2] * 3 + [1] * 9

    run(failed())


def test_a_file_of_another_run_is_refused_and_nobody_waits(tmp_path: Path) -> None:
    async def refused() -> None:
        for _ in range(2):
            async with Coordinator(specification(agents=1, rounds=2)) as coordinator:
                path = tmp_path / "a.npz"
                resume_from = path if path.exists() else None
                agent = Agent(
                    RINGS,
                    index=0,
                    coordinator=coordinator.address,
                    settings=ClientSettings(resume_from=resume_from),
                )
                if resume_from is None:
                    await agent.run_async()
                    agent.save(path)
                else:
                    with pytest.raises(errors.RunFileError, match="was saved in another run"):
                        await agent.run_async()
                    await coordinator.wait()
                    assert "site-0" in coordinator.engine.state.members.departures

    run(refused())


# Ends ---------------------------------------------------------------------------------------------------


def test_stopped_in_mid_run_everybody_concludes() -> None:
    async def stopped() -> None:
        async with Coordinator(specification(agents=3, rounds=0)) as coordinator:
            running = asyncio.create_task(ends(agents_of(3, coordinator.address)))
            await until(coordinator.engine, lambda: coordinator.engine.state.round >= 5)
            coordinator.stop("Ctrl-C")
            finished = await running
            assert [end.message for end in finished] == ["Ctrl-C"] * 3
            assert all(end.rounds >= 5 for end in finished)
            assert (await coordinator.wait()).cause is m.FinishCause.STOPPED

    run(stopped())


def test_an_agent_that_is_stopped_in_mid_round_ends_the_round_first() -> None:
    """Else what it saves would be written while its learner still writes to it."""

    async def stopped() -> Agent:
        loop, release = asyncio.get_running_loop(), threading.Event()

        def stop() -> None:
            loop.call_soon_threadsafe(agent.stop, "enough")
            loop.call_soon_threadsafe(loop.call_later, 0.1, release.set)
            release.wait(15.0)

        async with Coordinator(specification(agents=1, rounds=0)) as coordinator:
            workload = site_with(env=Interrupted(8, stop))
            agent = Agent(workload, index=0, coordinator=coordinator.address)
            assert (await agent.run_async()).message == "enough"
            assert agent.learner is not None
            assert agent.learner.learning_curve.round == [0, 1, 2]
            assert agent.learner.weights.count == len(agent.learner.learning_curve.mean_squared_td_error) == 3
            return agent

    run(stopped())


def test_agents_without_a_site_are_given_one_each() -> None:
    """And learn what they would have learnt had they brought it: the same bits."""

    async def fleet(*, named: bool) -> tuple[np.ndarray, set[tuple[str, int | None]]]:
        async with Coordinator(specification(agents=3, rounds=10), sites=3) as coordinator:
            agents = [
                Agent(RINGS, index=index if named else None, coordinator=coordinator.address) for index in range(3)
            ]
            await ends(agents)
            return coordinator.engine.state.basis, {(agent.agent_id, agent.index) for agent in agents}

    (given, sites), (brought, names) = run(fleet(named=False)), run(fleet(named=True))
    assert sites == names == {("site-0", 0), ("site-1", 1), ("site-2", 2)}
    np.testing.assert_array_equal(given, brought)


@pytest.mark.parametrize("known", [True, False])
def test_sites_may_be_counted_when_the_first_agent_asks_for_one(known: bool) -> None:
    asked: list[str] = []

    def count() -> int:
        asked.append(threading.current_thread().name)
        if not known:
            raise errors.WorkloadError("the workload is not there any more")
        return 2

    async def fleet() -> int | None:
        async with Coordinator(specification(agents=2, rounds=3), sites=count) as coordinator:
            assert coordinator.engine.state.config.site_limit is None
            assert not asked
            await ends([Agent(RINGS, coordinator=coordinator.address) for _ in range(2)])
            return coordinator.engine.state.config.site_limit

    assert run(fleet()) == (2 if known else None)
    assert len(asked) == 1
    assert asked[0] != threading.main_thread().name


def test_an_agent_brings_a_site_with_its_name_or_neither() -> None:
    with pytest.raises(errors.InvalidValueError, match="'pump' has no site"):
        Agent(RINGS, agent_id="pump")
    with pytest.raises(errors.InvalidValueError, match="leave out the site claim 'me'"):
        Agent(RINGS, index=0, site_claim_id="me")
    with pytest.raises(errors.InvalidValueError, match="agent id 'a/b'"):
        Agent(RINGS, site_claim_id="a/b")
    for empty in ({"index": 0, "agent_id": ""}, {"site_claim_id": ""}):
        with pytest.raises(errors.InvalidValueError, match="agent id ''"):
            Agent(RINGS, **empty)


def test_a_coordinator_that_is_closed_says_good_bye_to_all() -> None:
    async def closed() -> None:
        async with Coordinator(specification(agents=2, rounds=0)) as coordinator:
            running = asyncio.create_task(ends(agents_of(2, coordinator.address)))
            await until(coordinator.engine, lambda: coordinator.engine.state.round >= 2)
        assert [end.message for end in await running] == ["the coordinator was closed"] * 2
        await coordinator.close()

    run(closed())


def test_too_few_agents_in_time() -> None:
    async def waited() -> None:
        async with Coordinator(specification(agents=2), start_seconds=1.5) as coordinator:
            (end,) = await ends(agents_of(1, coordinator.address))
            assert end == AgentEnd("only 1 of 2 agents joined within 1.5 s", 0)
            assert (await coordinator.wait()).cause is m.FinishCause.NOT_STARTED

    run(waited())


def test_nobody_joins_a_run_that_is_over() -> None:
    async def late() -> None:
        async with Coordinator(specification(agents=1, rounds=1)) as coordinator:
            await ends(agents_of(1, coordinator.address))
            with pytest.raises(errors.RunFinishedError, match="is over after 1 rounds"):
                await Agent(RINGS, index=1, coordinator=coordinator.address).run_async()

    run(late())


def test_a_coordinator_that_is_not_there() -> None:
    async def alone() -> None:
        async with Bridge("127.0.0.1:9") as bridge:
            agent = Agent(
                RINGS, index=0, coordinator=bridge.address, settings=ClientSettings(progress_timeout_seconds=0.3)
            )
            with pytest.raises(
                errors.CoordinatorUnavailableError, match=f"{bridge.address} .*given up after 0.3 s"
            ):
                await agent.run_async()

    run(alone())


def test_an_agent_that_looks_for_its_coordinator_can_be_stopped() -> None:
    async def stopped() -> None:
        async with Bridge("127.0.0.1:9") as bridge:
            agent = Agent(RINGS, index=0, coordinator=bridge.address)
            async with agent:
                await bridge.changed.wait()
            assert await agent.wait() == AgentEnd("its program has finished with it", 0, left=True)
            assert not agent._driver._tasks, "no connection attempt is left"

    run(stopped())


def test_a_port_that_is_in_use() -> None:
    async def twice() -> None:
        async with Coordinator(specification()) as coordinator:
            port = int(coordinator.address.rpartition(":")[2])
            second = Coordinator(specification(), port=port)
            with pytest.raises(errors.InvalidValueError, match=f"127.0.0.1:{port}.*in use"):
                await second.start()
            await second.close()

    run(twice())


def test_a_specification_out_of_range_listens_nowhere() -> None:
    with pytest.raises(errors.InvalidValueError, match=r"rank is 9.*agents is 0"):
        Coordinator(specification(rank=9, agents=0))


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
        spec = specification(agents=3, rounds=0, session_timeout_seconds=0.5)
        async with Coordinator(spec) as coordinator, Bridge(coordinator.address) as bridge:
            engine = coordinator.engine
            gone: list[str] = []
            engine.on_note.append(lambda note: gone.extend(note.agent_ids if note.kind == "agent-gone" else ()))
            agents = [*agents_of(2, coordinator.address), Agent(RINGS, index=2, coordinator=bridge.address)]
            running = asyncio.create_task(ends(agents))
            await until(engine, lambda: engine.state.round == 3)
            bridge.pause()
            await until(engine, lambda: "site-2" in engine.state.members.departures)
            assert engine.state.members.departures["site-2"].cause == "it was silent for 0.5 s"
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
                site_with(env=Interrupted(7, lambda: bool(release.wait(15.0)))),
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


# What observers see -------------------------------------------------------------------------------------


@asynccontextmanager
async def channel_to(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield channel


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


async def get_run(channel: grpc.aio.Channel) -> m.RunReport:
    answer = await channel.unary_unary(CALLS + "GetRun")(b"")
    return decode_run_report(pb.GetRunResponse.FromString(answer))


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
            slow = site_with(env=Interrupted(10, lambda: bool(release.wait(15.0))))
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


# Bad input ----------------------------------------------------------------------------------------------


async def refusal(channel: grpc.aio.Channel, *messages: bytes) -> tuple[grpc.StatusCode, str, str]:
    """What a stream ends with that sends these messages: the code, the reason, and the sentence."""
    call = channel.stream_stream(CALLS + "Collaborate")()
    try:
        for message in messages:
            await call.write(message)
        while await call.read() is not grpc.aio.EOF:
            pass
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    details = dict(await call.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    info = ErrorInfo()
    for detail in Status.FromString(details).details:
        assert detail.Unpack(info)
        assert info.domain == "cospan"
    return await call.code(), info.reason, await call.details()


def encoded(message: m.AgentMessage) -> bytes:
    return encode_agent_message(message).SerializeToString()


JOIN = encoded(join("a"))
BAD_STREAMS = {
    "garbage": ([b"\xff\xff\xffgarbage"], grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE"),
    "nothing": ([b""], grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE"),
    "gradient first": ([encoded(upload(0))], grpc.StatusCode.ABORTED, "OUT_OF_TURN"),
    "heartbeat first": ([encoded(m.Heartbeat())], grpc.StatusCode.ABORTED, "OUT_OF_TURN"),
    "two joins": ([JOIN, JOIN], grpc.StatusCode.ABORTED, "OUT_OF_TURN"),
    "garbage later": ([JOIN, b"\xff"], grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE"),
    "gradient too early": ([JOIN, encoded(upload(0))], grpc.StatusCode.ABORTED, "OUT_OF_TURN"),
    "other features": (
        [encoded(join("a", feature_dim=17))],
        grpc.StatusCode.FAILED_PRECONDITION,
        "FEATURE_MISMATCH",
    ),
    "session unknown": (
        [encoded(join("a", resumption=m.Resumption("x", "y", 0)))],
        grpc.StatusCode.NOT_FOUND,
        "SESSION_UNKNOWN",
    ),
}


@pytest.mark.parametrize("name", BAD_STREAMS)
def test_a_stream_that_says_something_wrong_ends_with_a_reason(name: str) -> None:
    messages, code, reason = BAD_STREAMS[name]

    async def refused() -> None:
        async with Coordinator(specification()) as coordinator, channel_to(coordinator.address) as channel:
            answer = await refusal(channel, *messages)
            assert answer[:2] == (code, reason)
            assert answer[2]
            assert (await get_run(channel)).phase is m.RunPhase.WAITING, "the coordinator continues"
            assert not coordinator.engine.streams

    run(refused())


def test_a_message_beyond_the_limit_of_the_run_is_refused() -> None:
    async def refused() -> None:
        async with Coordinator(specification()) as coordinator, channel_to(coordinator.address) as channel:
            code, _, text = await refusal(channel, JOIN, bytes(2_000_000))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "larger than max" in text
            assert (await get_run(channel)).phase is m.RunPhase.WAITING

    run(refused())


def test_a_stream_that_never_joins_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_JOIN_SECONDS", 0.1)

    async def silent() -> None:
        async with Coordinator(specification()) as coordinator, channel_to(coordinator.address) as channel:
            answer = await refusal(channel)
            assert answer == (grpc.StatusCode.ABORTED, "OUT_OF_TURN", "no Join came within 0.1 s")
            assert not coordinator.engine.streams

    run(silent())


def test_the_bound_is_for_the_join_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_JOIN_SECONDS", 0.5)

    async def joined() -> None:
        async with Coordinator(specification(rounds=1), start_seconds=1.5) as coordinator:
            (end,) = await ends(agents_of(1, coordinator.address))
            assert "only 1 of 2" in end.message

    run(joined())


def test_the_method_and_the_shapes_are_those_of_the_run() -> None:
    """A gradient of another shape, and one without what the run scales its step with."""
    method: Method = practical(3)

    async def refused() -> None:
        async with (
            Coordinator(specification(method, agents=1)) as coordinator,
            channel_to(coordinator.address) as channel,
        ):
            wrong = replace(upload(0).contribution, gradient=DenseMatrix(np.ones((R, D))))
            for contribution, text in (
                (wrong, "head_second_moment is missing"),
                (replace(wrong, head_second_moment=np.eye(R)), "pooled is missing"),
                (
                    replace(wrong, head_second_moment=np.eye(R), pooled=np.ones(D)),
                    "gradient.dense is 2 × 4; this run needs 4 × 2",
                ),
            ):
                answer = await refusal(channel, JOIN, encoded(m.GradientUpload(0, contribution)))
                assert answer[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
                assert text in answer[2]

    run(refused())
