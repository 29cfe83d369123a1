"""Relays over real gRPC on the loopback: the same result with a level or two more, and what breaks in between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from behaviour.bridge import Bridge
from behaviour.certificates import Certificates
from runs import RINGS, join, run, specification, until

from cospan.client.agent import Agent, AgentEnd
from cospan.client.group import AgentGroup
from cospan.client.session.transport import GrpcAgentStream, GrpcTransport
from cospan.core.method import compact, full_history, paper, practical
from cospan.core.run_fields import Participation
from cospan.core.specification import RunSpecification
from cospan.relay.engine import RelaySettings
from cospan.relay.relay import Relay
from cospan.server.coordinator import Coordinator
from cospan.wire import errors
from cospan.wire.messages import AgentMessage, AgentPhase, FinishCause, GradientUpload

METHODS = {"paper": paper(3), "practical": practical(3), "full history": full_history(3), "compact": compact(3)}


@contextlib.asynccontextmanager
async def relays(upstream: str, *gather: int) -> AsyncIterator[list[Relay]]:
    """Relays that join once `gather` agents are there."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Relay(upstream, settings=RelaySettings(gather_agents=count)))
            for count in gather
        ]


def agents_at(address: str, indices: Sequence[int]) -> list[Agent]:
    return [Agent(RINGS, index=index, coordinator=address) for index in indices]


async def ends(*members: Agent | AgentGroup) -> list[AgentEnd]:
    return await asyncio.gather(*(member.run_async() for member in members))


async def direct(spec: RunSpecification) -> np.ndarray:
    async with Coordinator(spec) as coordinator:
        await ends(*agents_at(coordinator.address, range(spec.agents)))
        return coordinator.engine.state.basis


async def relayed(spec: RunSpecification, *parts: Sequence[int]) -> np.ndarray:
    """A run with a relay for each part of the agents: the last basis."""
    async with (
        Coordinator(spec) as coordinator,
        relays(coordinator.address, *(len(part) for part in parts)) as level,
    ):
        agents = [each for relay, part in zip(level, parts, strict=True) for each in agents_at(relay.address, part)]
        assert {end.message for end in await ends(*agents)} == {f"all {spec.rounds} rounds are done"}
        reports = coordinator.engine.history.recent(99)
        assert [report.contributors for report in reports] == [spec.agents] * spec.rounds
        assert len(coordinator.engine.state.members.sessions) == len(parts)
        for relay in level:
            end = await relay.wait()
            assert getattr(end, "cause", None) is FinishCause.ROUNDS_REACHED
        return coordinator.engine.state.basis


@pytest.mark.parametrize("name", METHODS)
def test_one_level_more_changes_the_result_by_no_more_than_rounding(name: str) -> None:
    spec = specification(METHODS[name], agents=6, rounds=8)
    basis = run(direct(spec))
    found = [run(relayed(spec, (0, 1, 2), (3, 4, 5))) for _ in range(2)]
    np.testing.assert_allclose(found[0], basis, rtol=0, atol=1e-12)
    assert found[0].tobytes() == found[1].tobytes(), "the same relays give the same bits"


def test_a_relay_behind_a_relay_and_a_group_beside_single_agents() -> None:
    spec = specification(practical(3), agents=6, rounds=8)
    basis = run(direct(spec))

    async def stacked() -> np.ndarray:
        async with (
            Coordinator(spec) as coordinator,
            relays(coordinator.address, 4) as (upper,),
            Relay(upper.address, settings=RelaySettings(gather_agents=2, level=2)) as lower,
        ):
            group = AgentGroup(RINGS, (2, 3), coordinator=upper.address)
            agents = agents_at(lower.address, (0, 1)) + agents_at(coordinator.address, (4, 5))
            assert await ends(group, *agents) == [AgentEnd("all 8 rounds are done", 8)] * 5
            assert {report.contributors for report in coordinator.engine.history.recent(99)} == {6}
            return coordinator.engine.state.basis

    np.testing.assert_allclose(run(stacked()), basis, rtol=0, atol=1e-12)


def test_bounded_heads_are_named_through_a_relay_and_each_agent_says_so_once() -> None:
    spec = specification(replace(full_history(3), head_radius=0.01), agents=3, rounds=6)

    async def bounded() -> tuple[dict[str, bool], list[list[str]]]:
        async with Coordinator(spec) as coordinator, relays(coordinator.address, 2) as (relay,):
            agents = agents_at(relay.address, (0, 1)) + agents_at(coordinator.address, (2,))
            said: list[list[str]] = [[] for _ in agents]
            for agent, notes in zip(agents, said, strict=True):
                agent.on_note.append(lambda _, note, notes=notes: notes.append(note))  # type: ignore[misc]
            await ends(*agents)
            return {agent.agent_id: agent.head_bounded for agent in coordinator.status().agents}, said

    heads, said = run(bounded())
    assert heads == dict.fromkeys(("site-0", "site-1", "site-2"), True)
    for index, notes in enumerate(said):
        assert [note.startswith(f"the head of site-{index} reached head_radius = 0.01") for note in notes] == [True]


class WithMoment(GrpcTransport):
    """The uploads of its agent carry a second moment, whether or not the run asks for one."""

    async def open(self, specification: RunSpecification) -> GrpcAgentStream:
        stream = await super().open(specification)
        send = stream.send

        async def with_moment(message: AgentMessage) -> None:
            if isinstance(message, GradientUpload):
                changed = replace(message.contribution, head_second_moment=np.eye(specification.rank))
                message = replace(message, contribution=changed)
            await send(message)

        stream.send = with_moment  # type: ignore[method-assign]
        return stream


def test_a_second_moment_that_one_agent_alone_sends_does_not_stall_the_relay() -> None:
    spec = specification(paper(3), agents=3, rounds=4)
    basis = run(direct(spec))

    async def mixed() -> np.ndarray:
        async with Coordinator(spec) as coordinator, relays(coordinator.address, 3) as (relay,):
            odd = Agent(RINGS, index=2, transport=WithMoment(relay.address))
            assert await ends(odd, *agents_at(relay.address, (0, 1))) == [AgentEnd("all 4 rounds are done", 4)] * 3
            return coordinator.engine.state.basis

    np.testing.assert_allclose(run(mixed()), basis, rtol=0, atol=1e-12)


# Who comes and goes -----------------------------------------------------------------------------------------------


def test_agents_come_and_go_behind_a_relay() -> None:
    """Each is in the run's status by its own name; who stays misses no round."""

    async def changing() -> None:
        async with Coordinator(specification(practical(3), agents=2, rounds=0)) as coordinator:
            engine = coordinator.engine
            async with relays(coordinator.address, 2) as (relay,):
                stays, leaves, comes = agents_at(relay.address, (0, 1, 2))
                async with stays:
                    async with leaves:
                        await until(engine, lambda: engine.state.round >= 5)
                    await until(engine, lambda: "site-1" in engine.state.members.departures)
                    assert (
                        engine.state.members.departures["site-1"].cause == "its process joined again without site-1"
                    )
                    async with comes:
                        await until(engine, lambda: engine.state.history.rounds_counted.get("site-2", 0) >= 5)
                        assert set(engine.state.members.hosts) == {"site-0", "site-2"}
                    reports = engine.history.recent(engine.state.round)
                    assert engine.state.history.rounds_counted["site-0"] == len(reports)
                await until(engine, lambda: not engine.state.members.hosts)
                assert engine.state.members.departures["site-0"].cause == "it left: the last of its agents is gone"

    run(changing())


def test_a_relays_stream_that_breaks_comes_back_and_every_agent_counts_once() -> None:
    async def broken() -> None:
        async with (
            Coordinator(specification(practical(3), agents=3, rounds=40)) as coordinator,
            Bridge(coordinator.address) as bridge,
            relays(bridge.address, 2) as (relay,),
        ):
            agents = agents_at(relay.address, (0, 1)) + agents_at(coordinator.address, (2,))
            running = asyncio.ensure_future(ends(*agents))
            await until(coordinator.engine, lambda: coordinator.engine.state.round >= 5)
            bridge.drop()
            assert await running == [AgentEnd("all 40 rounds are done", 40)] * 3
            assert {report.contributors for report in coordinator.engine.history.recent(99)} == {3}
            assert coordinator.engine.state.members.departures == {}

    run(broken())


def test_an_agent_that_goes_before_its_welcome_gives_its_name_back() -> None:
    """While the coordinator was away the relay held it for connected, and refused its next process."""

    async def unwelcomed() -> None:
        async with (
            Coordinator(specification(practical(3), agents=1, rounds=0)) as coordinator,
            Bridge(coordinator.address) as bridge,
            relays(bridge.address, 1) as (relay,),
        ):
            bridge.refuse()
            engine = relay.engine
            stream = await GrpcTransport(relay.address).open(engine.state.specification)
            await stream.send(join("site-0", instance="the first one"))
            await until(engine, lambda: "site-0" in engine.state.members.hosts)
            await stream.close()
            token = engine.state.members.hosts["site-0"]
            await until(engine, lambda: engine.state.members.sessions[token].phase is AgentPhase.LOST)
            (second,) = agents_at(relay.address, (0,))
            async with second:
                await until(engine, lambda: engine.state.members.hosts["site-0"] != token)
            await until(engine, lambda: "site-0" not in engine.state.members.hosts)
            assert engine.state.members.departures["site-0"].cause.startswith("it left")

    run(unwelcomed())


def test_an_agent_that_another_process_hosts_does_not_keep_the_relay_out() -> None:
    async def taken() -> None:
        async with (
            Coordinator(specification(practical(3), agents=2, rounds=0)) as coordinator,
            relays(coordinator.address, 1) as (relay,),
        ):
            engine = coordinator.engine
            first, double = agents_at(relay.address, (0, 1))
            (elsewhere,) = agents_at(coordinator.address, (1,))
            async with first, elsewhere:
                await until(engine, lambda: engine.state.round >= 3)
                refused = asyncio.Event()
                relay.engine.on_note.append(lambda note: note.kind == "agent-gone" and refused.set())
                async with double:
                    await refused.wait()
                    counted = engine.state.history.rounds_counted["site-0"]
                    await until(engine, lambda: engine.state.history.rounds_counted["site-0"] > counted + 3)
                    assert "site-1" not in relay.engine.state.history.rounds_counted

    run(taken())


# Trust and refusals -----------------------------------------------------------------------------------------------


def test_certificates_on_both_sides(tmp_path: Path) -> None:
    certs = Certificates(tmp_path / "fleet")

    async def whole() -> None:
        server = certs.coordinator()
        async with Coordinator(specification(agents=2, rounds=3), tls=server) as coordinator:
            above = certs.issue("relay", "cospan:agents:site-0..1")
            async with Relay(
                coordinator.address, tls=server, upstream_tls=above, settings=RelaySettings(gather_agents=2)
            ) as relay:
                agents = [
                    Agent(
                        RINGS,
                        index=index,
                        coordinator=relay.address,
                        tls=certs.issue(f"agent {index}", f"cospan:agent:site-{index}"),
                    )
                    for index in (0, 1)
                ]
                stranger = Agent(RINGS, index=1, coordinator=relay.address, tls=certs.issue("x", "cospan:agent:x"))
                with pytest.raises(errors.IdentityMismatchError):
                    await stranger.run_async()
                assert await ends(*agents) == [AgentEnd("all 3 rounds are done", 3)] * 2

    run(whole())


def test_a_run_with_a_quorum_is_refused_before_anybody_joins() -> None:
    async def refused() -> None:
        spec = specification(agents=2, participation=Participation.QUORUM, quorum=0.5)
        async with Coordinator(spec) as coordinator:
            with pytest.raises(errors.InvalidValueError, match="participation is quorum"):
                await Relay(coordinator.address).start()

    run(refused())


def test_without_a_coordinator_a_relay_gives_up_after_its_progress_timeout() -> None:
    async def alone() -> None:
        with pytest.raises(errors.CoordinatorUnavailableError):
            await Relay("127.0.0.1:1", settings=RelaySettings(progress_timeout_seconds=0.5)).start()

    run(alone())
