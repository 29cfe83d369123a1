"""`make fuzz` in small: so few messages and files that it takes seconds, and all that is looked at there."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import files
from fuzz.decoder import play_randomly
from fuzz.files import READERS
from fuzz.live import FuzzCounts, LiveFuzzer
from runs import SECONDS, R, Ring, States, coin, run, specification, until

from cospan.client.agent import Agent
from cospan.client.workload import Site, Workload
from cospan.core.linalg.subspace import orthonormality_error
from cospan.core.method import paper
from cospan.core.specification import RunSpecification
from cospan.server.coordinator import Coordinator
from cospan.wire import messages as m

STEPS, WARM_UP, ROUNDS = 3, 60, 64
WAITS_IN_ROUND = 30


class Patient(Ring):
    """A ring that waits, in the middle of the warm-up, until the fuzzer is done."""

    def __init__(self, index: int, fuzzed: threading.Event) -> None:
        super().__init__(index)
        self._fuzzed, self._steps = fuzzed, 0

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        if self._steps == WAITS_IN_ROUND * STEPS:
            assert self._fuzzed.wait(SECONDS)
        self._steps += 1
        return super().step(action)


def spec_of(*, warm_up: int) -> RunSpecification:
    return specification(replace(paper(STEPS), warm_up_rounds=warm_up), rounds=ROUNDS, session_timeout_seconds=2.0)


async def fuzzed_run(spec: RunSpecification, messages: int) -> tuple[np.ndarray, FuzzCounts, int]:
    """A run of two honest agents, with `count` fuzzed messages.

    Returns:
        Its last basis, what became of the messages, and in how many rounds a gradient of the fuzzer counted.
    """
    fuzzed = threading.Event()

    def make(index: int, _seed: int) -> Site:
        return Site(env=Patient(index, fuzzed), features=States(), policy=coin)

    workload = Workload(make_site=make, name="rings", rank=R, steps_per_round=STEPS)
    async with Coordinator(spec) as coordinator:
        agents = [Agent(workload, index=index, coordinator=coordinator.address) for index in range(spec.agents)]
        honest = [asyncio.create_task(agent.run_async()) for agent in agents]
        # The run begins with the honest: begun by streams that come and go, it would be another one, or over.
        await until(coordinator.engine, lambda: coordinator.engine.state.phase is not m.RunPhase.WAITING)
        async with LiveFuzzer(coordinator.address, replace(spec, feature_fingerprint="map-1"), seed=1) as fuzzer:
            await fuzzer.send(messages)
        fuzzed.set()
        await asyncio.gather(*honest)
        end = await coordinator.wait()
        assert (end.cause, end.message) == (m.FinishCause.ROUNDS_REACHED, f"all {ROUNDS} rounds are done")
        state = coordinator.engine.state
        state.check()
        counted = sum(count for name, count in state.history.rounds_counted.items() if not name.startswith("site-"))
        return state.basis, fuzzer.counts, counted


def test_fuzzed_streams_move_nothing_in_a_warm_up() -> None:
    """Their gradients count, the rounds go on, and the last basis has the bits that it has without them."""
    fuzzed, counts, counted = run(fuzzed_run(spec_of(warm_up=WARM_UP), 200))
    alone, _, none = run(fuzzed_run(spec_of(warm_up=WARM_UP), 0))
    assert counts.problems == []
    assert counts.sent >= 200
    assert min(counted, counts.welcomes, counts.endings["INVALID_MESSAGE"]) > 2, "the fuzzer has not come far"
    assert none == 0
    assert fuzzed.tobytes() == alone.tobytes()


def test_what_counts_of_fuzzed_streams_gives_a_basis() -> None:
    basis, counts, counted = run(fuzzed_run(spec_of(warm_up=0), 150))
    assert counts.problems == []
    assert counted > 2
    assert orthonormality_error(basis) < 1e-12


def test_fuzzed_conversations() -> None:
    assert play_randomly(2000, seed=1) >= 2000


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_fuzzed_files(reader: files.Reader, tmp_path: Path) -> None:
    assert list(files.misread(reader, tmp_path, 40, seed=1)) == []
