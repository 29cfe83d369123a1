"""What agents, groups and relays refuse of a coordinator, over real gRPC; for what is refused nothing is sent."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from behaviour.command import cospan
from runs import RINGS, run, specification, until

from cospan.client.agent import Agent, ClientSettings
from cospan.client.group import AgentGroup
from cospan.core.aggregation.basis_update import BasisMove, Contribution
from cospan.core.aggregation.fallback import FallbackMove
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import Method, practical
from cospan.relay.engine import RelaySettings
from cospan.relay.relay import Relay
from cospan.server.coordinator import Coordinator
from cospan.server.runtime import basis_arithmetic
from cospan.wire.errors import BasisRefusedError, StepsBelowFloorError

HOSTS: dict[str, Callable[[str], Agent | AgentGroup]] = {
    "agent": lambda address: Agent(RINGS, index=0, coordinator=address),
    "group": lambda address: AgentGroup(RINGS, [0, 1], coordinator=address),
}


@pytest.mark.parametrize("host", HOSTS)
def test_one_step_per_round_is_refused_by_default_and_the_run_has_heard_of_nobody(host: str) -> None:
    async def refused() -> None:
        async with Coordinator(specification(practical(1))) as coordinator:
            with pytest.raises(StepsBelowFloorError, match="has 1 step per round, and min_steps_per_round is 2"):
                await HOSTS[host](coordinator.address).run_async()
            assert not coordinator.engine.state.members.sessions
            assert not coordinator.engine.state.members.departures

    run(refused())


def test_a_relay_refuses_for_its_agents() -> None:
    async def refused() -> None:
        async with Coordinator(specification(practical(3))) as coordinator:
            relay = Relay(coordinator.address, settings=RelaySettings(min_steps_per_round=5))
            with pytest.raises(StepsBelowFloorError, match="has 3 steps per round, and min_steps_per_round is 5"):
                await relay.start()

    run(refused())


def test_an_agent_that_demands_secure_sums_or_noise_says_nothing_to_a_run_without(tmp_path: Path) -> None:
    """As real processes, by a flag and by a variable of the environment."""

    async def refused() -> None:
        async with Coordinator(specification(practical(3))) as coordinator:
            command = ("agent", "runs:RINGS", "--id", "0", "--coordinator", coordinator.address)
            path = {"PYTHONPATH": str(Path(__file__).parents[1])}
            code, _, err = await asyncio.to_thread(cospan, *command, "--require-secure-sums", cwd=tmp_path, **path)
            assert (code, "the run has no secure sums" in err) == (1, True), err
            code, _, err = await asyncio.to_thread(cospan, *command, cwd=tmp_path, **path, COSPAN_MAX_EPSILON="8")
            assert (code, "the run has no differential privacy, and max_epsilon is 8" in err) == (1, True), err
            assert not coordinator.engine.state.members.sessions
            assert not coordinator.engine.state.members.departures

    run(refused())


def test_the_command_ends_with_1_and_the_floor_can_be_lowered(tmp_path: Path) -> None:
    """As two real processes beside a coordinator with L = 1: the second one allows it."""

    async def both() -> None:
        async with Coordinator(specification(practical(1), agents=1, rounds=2)) as coordinator:
            command = ("agent", "runs:RINGS", "--id", "0", "--coordinator", coordinator.address)
            path = {"PYTHONPATH": str(Path(__file__).parents[1])}
            code, _, err = await asyncio.to_thread(cospan, *command, cwd=tmp_path, **path)
            assert (code, err.count("\n")) == (1, 1)
            assert "the run has 1 step per round, and min_steps_per_round is 2" in err
            path["COSPAN_MIN_STEPS_PER_ROUND"] = "1"
            code, out, err = await asyncio.to_thread(cospan, *command, cwd=tmp_path, **path)
            assert (code, err) == (0, "")
            assert "2 rounds learnt" in out

    run(both())


def chosen_at(number: int) -> Callable[..., FallbackMove]:
    """The step of a coordinator that chooses the basis after one round."""
    honest = basis_arithmetic.sound_move

    def move(
        basis: np.ndarray,
        contributions: Sequence[Contribution],
        method: Method,
        round_number: int,
        step_memory: np.ndarray | None = None,
        *,
        head_covariance: np.ndarray | None = None,
    ) -> FallbackMove:
        if round_number != number:
            return honest(basis, contributions, method, round_number, step_memory, head_covariance=head_covariance)
        chosen = random_basis(*basis.shape, np.random.default_rng(7))
        return FallbackMove(BasisMove(basis, chosen, step_memory, head_covariance=head_covariance))

    return move


@pytest.mark.parametrize("host", [*HOSTS, "relay"])
def test_a_chosen_basis_is_refused_and_nothing_is_sent_for_it(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = specification(replace(practical(3), largest_turn=1.0), agents=2, rounds=0)
    monkeypatch.setattr(basis_arithmetic, "sound_move", chosen_at(40))
    refusal = r"the basis of round 41 is turned by \d\d\.?\d* degrees from that of round 40"

    async def refused() -> None:
        async with Coordinator(spec) as coordinator:
            if host == "group":
                with pytest.raises(BasisRefusedError, match=refusal):
                    await HOSTS[host](coordinator.address).run_async()
            elif host == "agent":
                agents = [Agent(RINGS, index=index, coordinator=coordinator.address) for index in (0, 1)]
                found = await asyncio.gather(*(each.run_async() for each in agents), return_exceptions=True)
                assert all(isinstance(each, BasisRefusedError) for each in found), found
            else:
                await behind_a_relay(coordinator)
            await until(coordinator.engine, lambda: len(coordinator.engine.state.members.departures) == 2)
            assert coordinator.engine.state.round == 41, "round 41 never got a gradient"

    run(refused())


async def behind_a_relay(coordinator: Coordinator) -> None:
    async with Relay(coordinator.address, settings=RelaySettings(gather_agents=2)) as relay:
        agents = [
            Agent(
                RINGS, index=index, coordinator=relay.address, settings=ClientSettings(progress_timeout_seconds=1.0)
            )
            for index in (0, 1)
        ]
        playing = [asyncio.create_task(each.run_async()) for each in agents]
        with pytest.raises(BasisRefusedError, match="the basis of round 41 is turned by"):
            await relay.wait()
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)
