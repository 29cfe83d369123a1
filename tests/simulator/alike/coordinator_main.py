"""A real coordinator whose arithmetic is that of the simulator; it says how its round stands."""

import asyncio
import logging
from multiprocessing.connection import Connection
from pathlib import Path

from cospan.core.specification import RunSpecification
from cospan.server.coordinator import Coordinator
from cospan.server.runtime import engine
from cospan.wire.messages import RunPhase
from simulator import toy
from simulator.alike.script import Standing

_LOOK_SECONDS = 0.01


def run_coordinator(pipe: Connection, specification: RunSpecification, folder: Path, address: Path) -> None:
    """Serves the run until it is over; sends a `Standing`, or None, whenever that has changed."""
    engine.computed_basis = toy.computed
    logging.getLogger("cospan").addHandler(logging.NullHandler())
    asyncio.run(_serve(pipe, specification, folder, address))


async def _serve(pipe: Connection, specification: RunSpecification, folder: Path, address: Path) -> None:
    async with Coordinator(specification, run_folder=folder) as coordinator:
        beside = address.with_suffix(".new")
        beside.write_text(coordinator.address, encoding="utf-8")
        beside.replace(address)
        told: Standing | None = None
        over = asyncio.create_task(coordinator.wait())
        while not over.done():
            standing = _standing(coordinator)
            if standing != told:
                told = standing
                pipe.send(standing)
            await asyncio.wait({over}, timeout=_LOOK_SECONDS)


def _standing(coordinator: Coordinator) -> Standing | None:
    state = coordinator.engine.state
    if state.phase is not RunPhase.COLLECTING:
        return None
    current = state.open_round
    present = frozenset(state.members.hosts)
    durable, awaited = state.durability.durable_round, frozenset(current.awaited)
    return Standing(state.round, durable, present, awaited, frozenset(current.counted))
