"""The agent of examples/agent-node beside Python agents, with a real coordinator: the same fleet as Python alone.

With rank 1 every number of Algorithm 1 is one product or one sum of a few terms, which all languages round alike.
With more columns NumPy's dot products may fuse multiplications and additions, and other programs agree up to
rounding.
"""

import asyncio
import contextlib
import importlib.util
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from behaviour.bridge import Bridge
from runs import run

from cospan.client import Agent
from cospan.client.workload import Workload
from cospan.core.secure_sums.graph import neighbours_of
from cospan.core.specification import basis_digest
from cospan.server.coordinator import Coordinator
from cospan.simulation import Fleet, FleetResult

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
AGENTS, ROUNDS, NODE_INDEX = 3, 40, 1
_SECONDS = 60.0


def ring_workload() -> Workload:
    """The walk of ring.mjs in Python, from examples/ring.py."""
    spec = importlib.util.spec_from_file_location("ring", EXAMPLES / "ring.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.rings  # type: ignore[no-any-return]


RINGS = ring_workload()


@contextlib.asynccontextmanager
async def node_agent(address: str, *more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The agent of site NODE_INDEX as a process of Node.js; ended when the block is left."""
    command = ("node", str(EXAMPLES / "agent-node" / "agent.mjs"), "--json", "--index", str(NODE_INDEX))
    process = await asyncio.create_subprocess_exec(
        *command,
        *("--coordinator", address, *more),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def played_over_the_network(
    fleet: Fleet, on_round: Callable[[Bridge, int], None] = lambda _bridge, _closed: None
) -> tuple[str, np.ndarray, dict[str, Any]]:
    """The fleet's run with Python agents at all sites but one: digest of the basis, the basis, what Node learnt.

    `on_round` may do something to the network of the agent in Node.js whenever a round has closed.
    """
    async with (
        Coordinator(fleet.specification) as coordinator,
        Bridge(coordinator.address) as bridge,
        contextlib.AsyncExitStack() as stack,
    ):
        coordinator.engine.on_round.append(lambda command: on_round(bridge, command.report.closed_round))
        for index in range(AGENTS):
            if index != NODE_INDEX:
                await stack.enter_async_context(Agent(RINGS, index=index, coordinator=coordinator.address))
        process = await stack.enter_async_context(node_agent(bridge.address))
        output, errors = await process.communicate()  # it ends with the run, or before it where it fails
        assert process.returncode == 0, errors.decode()
        await coordinator.wait()
        basis = np.array(coordinator.engine.state.basis)
        return basis_digest(basis), basis, json.loads(output)


def fleet_of_python_agents(**changes: Any) -> tuple[Fleet, FleetResult]:
    values: dict[str, Any] = {"agents": AGENTS, "rounds": ROUNDS, "seed": 4, "preset": "paper"}
    fleet = Fleet(RINGS, **(values | changes))
    return fleet, fleet.run()


def test_with_an_agent_in_another_language_the_basis_has_the_same_bits() -> None:
    fleet, expected = fleet_of_python_agents(rank=1)
    digest, _, learnt = run(played_over_the_network(fleet), _SECONDS)
    assert digest == expected.basis_sha256
    agent = expected.agents[NODE_INDEX]
    assert learnt["gain"] == agent.gain
    assert learnt["weights"] == agent.weights.tolist()


@pytest.mark.parametrize("preset", ["paper", "full-history"])
def test_with_more_columns_it_agrees_up_to_rounding(preset: str) -> None:
    fleet, expected = fleet_of_python_agents(rank=2, preset=preset)
    _, basis, learnt = run(played_over_the_network(fleet), _SECONDS)
    np.testing.assert_allclose(basis, expected.basis, rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(learnt["weights"], expected.agents[NODE_INDEX].weights, rtol=1e-9, atol=1e-9)


def test_its_gradients_count_once_when_its_connection_breaks() -> None:
    fleet, expected = fleet_of_python_agents(rank=1)
    breaks = 0

    def break_often(bridge: Bridge, closed_round: int) -> None:
        nonlocal breaks
        if closed_round % 7 == 3:
            breaks += 1
            bridge.drop()

    digest, _, learnt = run(played_over_the_network(fleet, break_often), _SECONDS)
    assert breaks == 6
    assert digest == expected.basis_sha256
    assert learnt["weights"] == expected.agents[NODE_INDEX].weights.tolist()


def secure_fleet(**changes: Any) -> tuple[Fleet, FleetResult]:
    return fleet_of_python_agents(secure_sums=True, min_cohort=AGENTS, **changes)


def test_with_secure_sums_the_basis_has_the_same_bits() -> None:
    """Its keys, masks and fixed point are those of Python agents; its connection breaks, and it sends again."""
    fleet, expected = secure_fleet(rank=1)

    def break_often(bridge: Bridge, closed_round: int) -> None:
        if closed_round % 7 == 3:
            bridge.drop()

    digest, _, learnt = run(played_over_the_network(fleet, break_often), _SECONDS)
    assert digest == expected.basis_sha256
    assert learnt["weights"] == expected.agents[NODE_INDEX].weights.tolist()


def test_with_secure_sums_and_pooled_numbers_it_agrees_up_to_rounding() -> None:
    fleet, expected = secure_fleet(rank=2, preset="full-history")
    _, basis, _ = run(played_over_the_network(fleet), _SECONDS)
    np.testing.assert_allclose(basis, expected.basis, rtol=0.0, atol=1e-9)


def test_the_ring_of_a_large_epoch_is_that_of_python_agents() -> None:
    epoch_id = bytes(range(32))
    module = (EXAMPLES / "agent-node" / "secure-sums.mjs").as_uri()
    program = (
        f"import {{ neighboursOf }} from {module!r};"
        f"const epoch = Buffer.from('{epoch_id.hex()}', 'hex');"
        "const found = [[46, 3], [48, 0], [100, 99]].map(([n, place]) => neighboursOf(epoch, n, place));"
        "console.log(JSON.stringify(found));"
    )
    done = subprocess.run(
        ["node", "--input-type=module", "-e", program], check=True, capture_output=True, timeout=_SECONDS
    )
    found = [tuple(sorted(places)) for places in json.loads(done.stdout)]
    assert found == [neighbours_of(epoch_id, *case) for case in ((46, 3), (48, 0), (100, 99))]


def test_its_refusals_are_one_sentence() -> None:
    async def refused() -> None:
        fleet, _ = fleet_of_python_agents(rank=1, rounds=1)
        async with (
            Coordinator(fleet.specification) as coordinator,
            node_agent(coordinator.address, "--states", "5") as agent,
        ):
            _, errors = await agent.communicate()
            assert agent.returncode == 1
            assert errors.decode().count("\n") == 1
            assert "FEATURE_MISMATCH" in errors.decode()

    run(refused(), _SECONDS)
