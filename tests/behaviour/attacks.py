"""A run that is attacked, and must end as one that is not."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from runs import SECONDS, D, R, Ring, States, coin, ring_site, run, specification, until

from cospan.client.agent import Agent
from cospan.client.workload import Site, Workload
from cospan.core.method import full_history
from cospan.core.specification import basis_digest
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1 import matrix_pb2
from cospan.server.coordinator import Coordinator
from cospan.wire import errors
from cospan.wire.codec.matrices import encode_matrix

SPEC = specification(full_history(3), agents=2, rounds=8, session_timeout_seconds=3.0)
ATTACKED_ROUND = 3
FINGERPRINT = States().fingerprint
Attack = Callable[[Coordinator], Awaitable[None]]


class Held(Ring):
    """A ring that stands still in its fourth round until the attack is over."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__(0)
        self._gate, self._steps = gate, 0

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        if self._steps == 3 * ATTACKED_ROUND + 1:
            assert self._gate.wait(SECONDS)
        return super().step(action)


async def digest(attack: Attack | None = None) -> str:
    """The last basis of two honest agents' run, which is attacked in its fourth round."""
    gate = threading.Event()

    def make(index: int, seed: int) -> Site:
        return Site(env=Held(gate), features=States(), policy=coin) if index == 0 else ring_site(index, seed)

    rings = Workload(make_site=make, name="rings")
    async with Coordinator(SPEC) as coordinator:
        state = coordinator.engine.state
        agents = [Agent(rings, index=index, coordinator=coordinator.address) for index in range(2)]
        running = asyncio.gather(*(agent.run_async() for agent in agents))
        try:
            await until(coordinator.engine, lambda: coordinator.engine.state.round == ATTACKED_ROUND)
            if attack is not None:
                await attack(coordinator)
        finally:
            gate.set()
        assert {end.message for end in await running} == {"all 8 rounds are done"}
        state = coordinator.engine.state
        assert {name: state.history.rounds_counted[name] for name in ("site-0", "site-1")} == {
            "site-0": 8,
            "site-1": 8,
        }
        return basis_digest(state.basis)


def unharmed(attack: Attack) -> None:
    """The attack changes nothing for the honest agents."""
    assert run(digest(attack)) == run(digest())


def matrix(values: Any, dtype: type = np.float64, **changes: Any) -> matrix_pb2.Matrix:
    message = encode_matrix(np.array(values, dtype=dtype))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def gradient(**changes: Any) -> bytes:
    """A gradient of the open round as the run wants it, with other fields; None leaves one out."""
    fields: dict[str, Any] = {
        "round": ATTACKED_ROUND,
        "weight": 1.0,
        "dense": matrix(np.ones((D, R))),
        "head_second_moment": matrix(np.eye(R)),
        "pooled": matrix(np.ones((D, 1))),
    } | changes
    if "factored" in changes:
        del fields["dense"]
    message = pb.SubspaceGradient(**{name: value for name, value in fields.items() if value is not None})
    return pb.CollaborateRequest(gradient=message).SerializeToString()


WRONG = errors.InvalidMessageError
EARLY = errors.OutOfTurnError


HEARTBEAT = pb.CollaborateRequest(heartbeat=pb.Heartbeat()).SerializeToString()
