"""Fleets whose logs are of unequal lengths, and a site that joins in the middle: each by what it knows."""

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
from runs import run, until
from unequal_logs import FEW, MANY, error_of, write_logs

from cospan.client import specify
from cospan.client.agent import Agent, ClientSettings
from cospan.client.logs.log_workload import reference_of
from cospan.server.coordinator import Coordinator
from cospan.simulation import Fleet

SECONDS = 300.0


def test_a_site_with_ten_rows_gains_and_the_others_lose_nothing(tmp_path: Path) -> None:
    program = Path(__file__).parents[1] / "unequal_logs.py"
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    found = json.loads(done.stdout)
    for site in map(str, FEW):
        assert found["together"][site] < 0.5 * found["alone"][site]
    others = [(found["together"][site], found["without"][site]) for site in map(str, MANY)]
    assert np.median([ours / theirs for ours, theirs in others]) < 1.05
    assert sum(ours for ours, _ in others) < 1.05 * sum(theirs for _, theirs in others)


def test_a_site_that_joins_late_learns_its_whole_log_and_comes_to_the_others(tmp_path: Path) -> None:
    rows, late = dict.fromkeys((0, 1, 2, 4), 720), 3
    mapping = write_logs(tmp_path / "logs", rows)
    reference = reference_of(mapping, str(tmp_path / "logs"))
    spec = specify(reference, seed=1, agents=4, min_agents=3)
    assert spec.rounds == 30
    joins_at, may_go_on = 15, threading.Event()

    def hold(_agent: Agent, round_number: int) -> None:
        if round_number == joins_at:
            assert may_go_on.wait(SECONDS)

    async def whole() -> list[Agent]:
        async with Coordinator(spec, start_seconds=10.0) as coordinator:
            settings = ClientSettings(with_baseline=False)
            agents = [
                Agent(reference, index=index, coordinator=coordinator.address, settings=settings)
                for index in range(4)
            ]
            agents[0].on_round.append(hold)
            runs = [asyncio.create_task(agent.run_async()) for agent in agents[:late]]
            await until(coordinator.engine, lambda: coordinator.engine.state.round >= joins_at)
            runs.append(asyncio.create_task(agents[late].run_async()))
            await until(coordinator.engine, lambda: len(coordinator.engine.state.members.hosts) == 4)
            may_go_on.set()
            await asyncio.gather(*runs)
        return agents

    agents = run(whole(), SECONDS)
    learners = [agent.learner for agent in agents]
    assert all(learner is not None for learner in learners)
    steps = [learner.state.steps for learner in learners if learner is not None]
    assert steps == [719] * 4, "the late one has missed 16 rounds, and learnt its log to the end"
    last = learners[late]
    assert last is not None
    on_time = Fleet(reference, seed=1, baseline=False).run(progress=False).agents[late]
    assert error_of(4, last.weights.mean) < 1.1 * error_of(4, on_time.weights)
