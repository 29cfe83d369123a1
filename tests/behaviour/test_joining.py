"""Agents that join and leave over real gRPC: their names, their sites, their features, and their failures."""

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from behaviour.fleets import Interrupted, agents_of, ends, site_with
from runs import RINGS, States, run, specification, until

from cospan.client.agent import Agent, AgentEnd, ClientSettings
from cospan.client.workload import FeatureMap
from cospan.server.coordinator import Coordinator
from cospan.wire import errors


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
                    settings=ClientSettings(progress_timeout_seconds=5.0),
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


# Sites, and runs that are over ------------------------------------------------------------------------


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


def test_nobody_joins_a_run_that_is_over() -> None:
    async def late() -> None:
        async with Coordinator(specification(agents=1, rounds=1)) as coordinator:
            await ends(agents_of(1, coordinator.address))
            with pytest.raises(errors.RunFinishedError, match="is over after 1 rounds"):
                await Agent(RINGS, index=1, coordinator=coordinator.address).run_async()

    run(late())
