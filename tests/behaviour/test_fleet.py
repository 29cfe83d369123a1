"""A coordinator and its agents over real gRPC on the loopback: whole runs, and how they end."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from behaviour.bridge import Bridge
from behaviour.fleets import Interrupted, agents_of, direct, ends, site_with
from runs import RINGS, SECONDS, run, specification, until

from cospan.client.agent import Agent, AgentEnd, ClientSettings
from cospan.core.method import Aggregation, compact, full_history, paper, practical
from cospan.server.coordinator import Coordinator
from cospan.wire import errors
from cospan.wire import messages as m

METHODS = {
    "paper": paper(3),
    "practical": practical(3),
    "warm paper": replace(paper(3), warm_up_rounds=2),
    "full history": full_history(3),
    "warm full history": replace(full_history(3), warm_up_rounds=3),
    "warm compact": replace(compact(3), warm_up_rounds=2),
    "clipped": replace(practical(3), aggregation=Aggregation.CLIPPED),
    "trimmed": replace(compact(3), aggregation=Aggregation.TRIMMED),
    "geometric median": replace(full_history(3), aggregation=Aggregation.GEOMETRIC_MEDIAN, warm_up_rounds=2),
}


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
            release.wait(SECONDS)

        async with Coordinator(specification(agents=1, rounds=0)) as coordinator:
            workload = site_with(env=Interrupted(8, stop))
            agent = Agent(workload, index=0, coordinator=coordinator.address)
            assert (await agent.run_async()).message == "enough"
            assert agent.learner is not None
            assert agent.learner.learning_curve.round == [0, 1, 2]
            assert agent.learner.weights.count == len(agent.learner.learning_curve.mean_squared_td_error) == 3
            return agent

    run(stopped())


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
        async with Coordinator(specification(agents=2), start_seconds=5.0) as coordinator:
            (end,) = await ends(agents_of(1, coordinator.address))
            assert end == AgentEnd("only 1 of 2 agents joined within 5 s", 0)
            assert (await coordinator.wait()).cause is m.FinishCause.NOT_STARTED

    run(waited())


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
