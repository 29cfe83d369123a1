"""Agents that are told the steps of control loops, in the processes of these loops."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from behaviour.command import started
from control_loop import SECONDS

from cospan.client.agent import Agent, ClientSettings
from cospan.client.feeds.errors import FeedClosedError
from cospan.client.feeds.told import FeedSettings, Outcome
from cospan.simulation import Fleet
from cospan.wire.errors import CoordinatorUnavailableError, CospanError, InvalidValueError

LOOP = Path(__file__).parents[1] / "control_loop.py"


def test_what_loops_tell_gives_the_bits_of_their_environments(tmp_path: Path) -> None:
    sites, rounds, seed = 3, 6, 3
    with started(
        *("coordinator", "--workload", "microgrids", "--agents", str(sites), "--rounds", str(rounds)),
        *("--seed", str(seed), "--port", "0", "--run-folder", "run", "--json"),
        cwd=tmp_path,
    ) as coordinator:
        assert coordinator.stdout is not None
        events = (json.loads(line) for line in coordinator.stdout)
        address = next(event["address"] for event in events if event["event"] == "listening")
        loops = [
            subprocess.Popen(
                [sys.executable, LOOP, "microgrids", str(index), str(seed), address, str(24 * rounds)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for index in range(sites)
        ]
        try:
            said = [loop.communicate(timeout=SECONDS)[0] for loop in loops]
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()
        assert all(f"rounds={rounds}" in each for each in said)
        coordinator.wait(SECONDS)
    document = json.loads((tmp_path / "run/result.json").read_text(encoding="utf-8"))
    alone = Fleet("microgrids", agents=sites, rounds=rounds, seed=seed).run()
    assert document["basis_sha256"] == alone.basis_sha256


def test_a_loop_that_ends_leaves_and_its_agent_takes_no_more_steps() -> None:
    with Agent("queues", index=0, coordinator="127.0.0.1:9", feed=FeedSettings()) as agent:
        assert agent.observe(3, 1.0, sequence=0) is Outcome.NEW
        assert agent.feed.next_sequence == 1
    with pytest.raises(FeedClosedError, match="site-0 has ended"):
        agent.observe(3, 1.0, sequence=1)


def test_what_ends_the_agent_is_raised_at_the_end_of_the_block() -> None:
    impatient = ClientSettings(progress_timeout_seconds=0.2)
    with (
        pytest.raises(CoordinatorUnavailableError),
        Agent("queues", index=0, coordinator="127.0.0.1:9", settings=impatient, feed=FeedSettings()) as agent,
        pytest.raises(CospanError),
    ):
        agent.wait_until_over(SECONDS)


def test_agents_without_a_feed_or_without_a_site_say_so(tmp_path: Path) -> None:
    agent = Agent("queues", index=0)
    with pytest.raises(InvalidValueError, match="steps the environment of its site"):
        agent.observe(3, 1.0)
    with pytest.raises(InvalidValueError, match="within `with agent:` only"):
        agent.wait_until_over()
    with pytest.raises(InvalidValueError, match="give its index"):
        Agent("queues", feed=FeedSettings())
    with pytest.raises(InvalidValueError, match="give it a state_file"):
        Agent("queues", index=0, feed=FeedSettings(backlog=tmp_path / "site-0.feed"))
