"""Runs with differential privacy over real gRPC: noise is in the sum, vectors are counted, the budget ends."""

import asyncio
import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from behaviour.command import ended, started, wait_for_site
from behaviour.fleets import agents_of, ends
from private_runs import private, seeded
from runs import RINGS, run, until

from cospan.client.agent import Agent, ClientSettings
from cospan.client.files.state_file import VECTORS, counted_in
from cospan.client.gradient_agent import GradientAgent
from cospan.client.group import AgentGroup
from cospan.client.placement import hosts_of
from cospan.core.specification import RunSpecification
from cospan.relay.relay import Relay
from cospan.server.coordinator import Coordinator
from cospan.simulation.local_run import LocalRun
from cospan.wire.errors import BudgetSpentError, CospanError, InvalidValueError
from cospan.wire.files.npz import load_npz, save_npz

_SECONDS = 90.0


def in_process(spec: RunSpecification, seed: int | None) -> bytes:
    """The last basis; with the system's own noise where no seed is given."""
    local = LocalRun(spec, RINGS, hosts_of(spec, None), run_id="local")
    if seed is not None:
        local.noise = partial(seeded, seed=seed)
    try:
        local.join_all()
        while not local.is_over:
            local.run_round()
    finally:
        local.close()
    return local.state.basis.tobytes()


def networked(spec: RunSpecification, folder: Path, seed: int | None) -> bytes:
    async def program() -> bytes:
        async with Coordinator(spec) as coordinator:
            agents = agents_of(spec.agents, coordinator.address, state_file=folder)
            for agent in agents if seed is not None else ():
                agent.noise = partial(seeded, agent.name, seed=seed or 0)
            await ends(agents)
            contributors = [report.contributors for report in coordinator.engine.history.recent(99)]
            assert contributors == [spec.agents] * spec.rounds
            return coordinator.engine.state.basis.tobytes()

    return run(program(), _SECONDS)


def counts_in(folder: Path, agents: int) -> Sequence[int | None]:
    return [counted_in(folder / f"site-{index}.npz") for index in range(agents)]


def test_the_bits_are_those_of_a_run_in_one_process_with_the_same_noise(tmp_path: Path) -> None:
    spec = private()
    bits = networked(spec, tmp_path, seed=1)
    assert bits == in_process(spec, seed=1)
    assert bits != in_process(spec, seed=2)
    assert counts_in(tmp_path, 5) == [6] * 5, "a vector in every round"


def test_the_noise_is_the_systems_and_is_large(tmp_path: Path) -> None:
    """Two runs that are equal in all else have other bases, and neither has that of a run without noise."""
    spec = private(rounds=2)
    silent = private(rounds=2, **dict.fromkeys((name for name in spec.as_dict() if name.startswith("dp_")), 0))
    plain = np.frombuffer(in_process(silent, None))
    noisy = [np.frombuffer(found) for found in (networked(spec, tmp_path, None), in_process(spec, None))]
    for one, other in ((noisy[0], noisy[1]), (noisy[0], plain), (noisy[1], plain)):
        assert np.max(np.abs(one - other)) > 1e-6


def test_an_agent_without_a_file_is_refused() -> None:
    async def program() -> None:
        async with Coordinator(private()) as coordinator:
            (agent,) = agents_of(1, coordinator.address)
            with pytest.raises(InvalidValueError, match="this agent keeps no file, in which it would count"):
                await agent.run_async()

    run(program(), _SECONDS)


def test_a_group_is_refused_on_either_side(tmp_path: Path) -> None:
    async def program() -> None:
        async with Coordinator(private()) as coordinator:
            settings = ClientSettings(state_file=tmp_path)
            group = AgentGroup(RINGS, range(5), coordinator=coordinator.address, settings=settings)
            with pytest.raises(InvalidValueError, match="a group never forms them"):
                await group.run_async()

    run(program(), _SECONDS)
    with pytest.raises(InvalidValueError, match="a group never forms them"):
        hosts_of(private(), 3)


def test_a_relay_is_refused() -> None:
    async def program() -> None:
        async with Coordinator(private()) as coordinator:
            with pytest.raises(CospanError, match="differential privacy"):
                async with Relay(coordinator.address):
                    pass

    run(program(), _SECONDS)


class Zeros:
    """A learner of one's own."""

    feature_dim, fingerprint = 4, "map-1"

    def begin(self, specification: RunSpecification) -> None:
        pass

    def gradient(self, round_number: int, basis: np.ndarray) -> np.ndarray:
        return np.zeros_like(basis)


def test_who_keeps_no_count_is_refused() -> None:
    async def program() -> None:
        async with Coordinator(private()) as coordinator:
            agent = GradientAgent(Zeros(), agent_id="site-0", coordinator=coordinator.address)
            with pytest.raises(InvalidValueError, match="site-0 keeps no count of its vectors"):
                await agent.run_async()

    run(program(), _SECONDS)


def test_an_agent_whose_budget_is_spent_sends_no_more_and_keeps_all(tmp_path: Path) -> None:
    """Its file says that it has sent all of its vectors; the run continues without it."""
    spec = private(rounds=3000, dp_vectors=3000, dp_noise_multiplier=50.0)

    async def program() -> None:
        async with Coordinator(spec) as coordinator:
            engine = coordinator.engine
            agents = agents_of(5, coordinator.address, state_file=tmp_path)
            *stay, leaving = [asyncio.create_task(each.run_async()) for each in agents]
            await until(engine, lambda: engine.state.round >= 3)
            agents[4].stop("for a moment", returning=True)
            await leaving
            path = tmp_path / "site-4.npz"
            values = load_npz(path, "the file of an agent")
            save_npz(path, **(values | {VECTORS: np.array(3000)}))
            settings = ClientSettings(state_file=tmp_path)
            again = Agent(RINGS, index=4, coordinator=coordinator.address, settings=settings)
            with pytest.raises(BudgetSpentError, match="site-4 has sent 3000 vectors"):
                await again.run_async()
            assert counted_in(path) == 3000
            assert load_npz(path, "it", names={"gain_count"})["gain_count"] >= values["gain_count"]
            await until(engine, lambda: "site-4" in engine.state.members.departures)
            gone = engine.state.round
            await until(engine, lambda: engine.state.round >= gone + 3)
            coordinator.stop("enough")
            await asyncio.gather(*stay)

    run(program(), _SECONDS)


# By the command line --------------------------------------------------------------------------------------------

SIZE = ("--agents", "4", "--rank", "1", "--seed", "4", "--rounds", "30", "--secure-sums")
PROMISED = ("--dp", "epsilon=8,delta=1e-5")


def test_an_agent_that_is_killed_has_counted_what_it_sent(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    arguments = (*SIZE, "--steps-per-round", "10", *PROMISED, "--output", "run", "--quiet", "--no-baseline")
    with started("run", "toy_workload:stuck", *arguments, cwd=tmp_path, TOY_FIFO=str(fifo)) as process:
        agent = wait_for_site(fifo)
        path = tmp_path / "run" / "agents" / "site-1.npz"
        before = counted_in(path)
        assert before is not None
        assert before >= 3, "step 40 is in round 3 or 4, and it has sent a vector in each before"
        os.kill(agent, signal.SIGKILL)
        process.send_signal(signal.SIGTERM)
        ended(process)
    after = counted_in(path)
    assert after is not None
    assert after >= before
