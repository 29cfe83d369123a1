"""Agents that are killed and started again: they go on from their own file, with their chain where it can be."""

import asyncio
import json
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from behaviour.command import ended, line_of, started
from runs import RINGS, SECONDS, Ring, States, coin, run, specification, until

from cospan.client.agent import Agent, ClientSettings
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.files.agent_result import AgentResult
from cospan.client.files.result_file import load_result
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.workload import Site, Workload
from cospan.server.coordinator import Coordinator
from cospan.wire import errors
from cospan.wire.files.npz import load_npz
from cospan.wire.files.spec_file import load_spec


def progress_of(process: subprocess.Popen[str], rounds: int) -> dict[str, Any]:
    """An agent's first line that reports that many rounds."""
    while True:
        told: dict[str, Any] = json.loads(line_of(process, '"progress"'))
        if told["rounds"] >= rounds:
            return told


def wait_for_rounds(path: Path, rounds: int) -> None:
    """Until an agent's file holds that many rounds: it is written beside the learning, at its own pace."""
    deadline = time.monotonic() + SECONDS
    while not path.exists() or load_result(path).number("gain_count") < rounds:
        assert time.monotonic() < deadline, f"{path} has no {rounds} rounds"
        time.sleep(0.02)


def alone(workload: str, spec_file: Path) -> SiteLearner:
    """Site 1 of a run, before its first round."""
    spec = load_spec(spec_file)
    return SiteLearner(
        make_site(load_workload(workload), 1, spec.seed), spec, name="site-1", index=1, with_baseline=False
    )


def killed_and_started_again(folder: Path, workload: str) -> tuple[AgentResult, AgentResult, str, Path]:
    """Site 1 of two: its file when it was killed, its last one, what it said then, and the spec of the run."""
    runs = folder / "runs"
    size = ("--agents", "2", "--rounds", "0", "--seed", "4", "--rank", "1", "--session-timeout-seconds", "5")
    coordinated = ("coordinator", "--workload", workload, *size, "--runs-folder", str(runs), "--port", "0")
    with started(*coordinated, "--json", cwd=folder) as coordinator:
        agent = ("agent", workload, "--coordinator", json.loads(line_of(coordinator, "listening"))["address"])
        # As in a container: only the welcome tells which site it is, so what its file is called.
        own = (
            *agent,
            "--sticky-site",
            "--json",
            "--checkpoint-seconds",
            "0.02",
            "--output",
            str(runs / "latest/agents"),
        )
        with started(*agent, "--id", "0", cwd=folder) as other:
            line_of(coordinator, "agent-joined")
            path = (runs / "latest").resolve() / "agents" / "site-1.npz"
            with started(*own, cwd=folder) as first:
                progress_of(first, 10)
                wait_for_rounds(path, 10)
                first.send_signal(signal.SIGKILL)
                first.wait()
            before = load_result(path)
            with started(*own, cwd=folder) as second:
                note = json.loads(line_of(second, '"note"'))["message"]
                progress_of(second, int(before.number("gain_count")) + 10)
                second.send_signal(signal.SIGTERM)
                code, out, _ = ended(second)
            assert code == 75
            last = json.loads(out.splitlines()[-1])
            other.send_signal(signal.SIGTERM)
            assert ended(other)[0] == 75
        coordinator.send_signal(signal.SIGTERM)
        ended(coordinator)
    after = load_result(path)
    assert (last["event"], last["rounds"]) == ("finished", after.number("gain_count")), "SIGTERM: the file is whole"
    assert note.startswith(f"continues from {path}, after {before.number('gain_count'):.0f} rounds")
    return before, after, note, path.parents[1] / "spec.toml"


def check_that_it_went_on(before: AgentResult, after: AgentResult) -> None:
    """Every series continues: what was learnt before the kill is part of the final result."""
    rounds = int(before.number("gain_count"))
    assert rounds >= 10
    assert after.number("gain_count") >= rounds + 10
    for name in ("curve_round", "curve_value_error", "curve_gain_estimate", "curve_td_alone_error"):
        np.testing.assert_array_equal(after.array(name)[:rounds], before.array(name))
        assert len(after.array(name)) == after.number("gain_count")
    numbers = after.array("curve_round")
    assert (np.diff(numbers) > 0).all(), "no round twice"
    assert after.number("last_round") == numbers[-1]
    # The averages moved on from where they were: one round more moves them by about 1 / rounds.
    gains = after.array("curve_gain_estimate")
    assert abs(gains[rounds] - gains[rounds - 1]) <= 10.0 * np.abs(gains[:rounds]).max() / rounds


def test_a_killed_agent_goes_on_with_its_chain(tmp_path: Path) -> None:
    """The rewards of all its rounds are those of one uninterrupted chain, to the last bit."""
    before, after, note, spec_file = killed_and_started_again(tmp_path, "queues")
    assert "anew" not in note
    check_that_it_went_on(before, after)
    unbroken = alone("queues", spec_file)
    for result in (before, after):
        unbroken.source.advance(int(result.number("steps")) - unbroken.source.steps)
        assert unbroken.source.reward_sum == result.number("reward_sum")
        saved = unbroken.source.saved()
        assert saved is not None
        assert saved[0] == result.text("chain_state")


def test_a_killed_agent_whose_environment_cannot_save_its_state_sees_new_data(tmp_path: Path) -> None:
    before, after, note, spec_file = killed_and_started_again(tmp_path, "toy_workload:workload")
    assert note.endswith("its chain starts over, for the state of its environment was not saved")
    check_that_it_went_on(before, after)
    spec = load_spec(spec_file)
    assert after.number("steps") == after.number("gain_count") * spec.method.steps_per_round


def test_the_file_of_an_earlier_run_is_kept(tmp_path: Path) -> None:
    async def two_runs() -> None:
        for _ in range(2):
            async with Coordinator(specification(agents=1, rounds=3)) as coordinator:
                notes: list[str] = []
                agent = Agent(
                    RINGS, index=0, coordinator=coordinator.address, settings=ClientSettings(state_file=tmp_path)
                )
                agent.on_note.append(lambda _, note, notes=notes: notes.append(note))  # type: ignore[misc]
                assert (await agent.run_async()).rounds == 3
                run_ids.append(coordinator.engine.state.config.run_id)
        assert notes == [f"{tmp_path / 'site-0.npz'} is of another run; it is now {aside()}"]

    def aside() -> Path:
        return tmp_path / f"site-0.{run_ids[0]}.npz"

    run_ids: list[str] = []
    run(two_runs())
    assert load_result(aside()).text("run_id") == run_ids[0]
    assert load_result(tmp_path / "site-0.npz").text("run_id") == run_ids[1]
    assert len(list(tmp_path.iterdir())) == 2


class Asked(Ring):
    """A ring that knows which threads have asked it to save its state."""

    def __init__(self) -> None:
        super().__init__(0)
        self.threads: set[str] = set()

    def save_state(self) -> dict[str, Any]:
        self.threads.add(threading.current_thread().name)
        return {"state": self._state}

    def load_state(self, state: dict[str, Any]) -> None:
        self._state = state["state"]


@pytest.mark.parametrize("seconds", [0.0, 1e-3])
def test_all_of_the_workloads_code_runs_in_the_learning_thread(tmp_path: Path, seconds: float) -> None:
    """Also when its state is saved, now and then and at the end."""
    env = Asked()
    workload = Workload(lambda *_: Site(env=env, features=States(), policy=coin), name="asked")

    async def whole() -> None:
        async with Coordinator(specification(agents=1, rounds=20)) as coordinator:
            agent = Agent(
                workload,
                index=0,
                coordinator=coordinator.address,
                settings=ClientSettings(state_file=tmp_path / "a.npz", checkpoint_seconds=seconds),
            )
            await agent.run_async()

    run(whole())
    assert env.threads == {"learner-site-0"}
    assert load_result(tmp_path / "a.npz").text("chain_state")


def test_two_agents_of_a_run_do_not_share_a_file(tmp_path: Path) -> None:
    """The second one is refused, and the first one's file stays."""

    async def two_agents() -> None:
        async with Coordinator(specification(agents=1, rounds=0)) as coordinator:
            path = tmp_path / "a.npz"
            first, second = (
                Agent(
                    RINGS,
                    index=index,
                    coordinator=coordinator.address,
                    settings=ClientSettings(state_file=path, checkpoint_seconds=1e-3),
                )
                for index in (0, 1)
            )
            async with first:
                await until(coordinator.engine, path.exists)
                with pytest.raises(
                    errors.RunFileError, match="is what site-0 has learnt in this run; name another"
                ):
                    await second.run_async()
            coordinator.stop("enough")
        assert load_npz(path, "a test")["agent_id"] == "site-0"

    run(two_agents())


def test_an_agent_in_a_program_goes_on_too(tmp_path: Path) -> None:
    """Stopped and started again within one run, as `async with` does."""

    async def learning_once(address: str) -> int:
        agent = Agent(RINGS, index=0, coordinator=address, settings=ClientSettings(state_file=tmp_path / "a.npz"))
        reached, loop = asyncio.Event(), asyncio.get_running_loop()
        agent.on_round.append(lambda *_: loop.call_soon_threadsafe(reached.set))
        async with agent:
            await reached.wait()
        assert agent.learner is not None
        assert int(load_result(tmp_path / "a.npz").number("gain_count")) == agent.learner.rounds
        return agent.learner.rounds

    async def twice() -> None:
        async with (
            # The run begins with both: where everybody has left, it is over.
            Coordinator(specification(agents=2, rounds=0)) as coordinator,
            Agent(RINGS, index=1, coordinator=coordinator.address),
        ):
            first = await learning_once(coordinator.address)
            assert await learning_once(coordinator.address) > first > 0
            coordinator.stop("enough")

    run(twice())
