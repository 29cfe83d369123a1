"""One trial: a coordinator, an agent with a feed, and a sender; the last two are killed at their times."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from behaviour.command import environment, started

from cospan.client.files.result_file import load_result
from cospan.server.storage.reader import read_state
from cospan.simulation import Fleet
from cospan.wire.errors import RunFileError

TESTS = Path(__file__).parents[1]
_LAST = 0.8
"""Of the steps, after which all kills are over."""
LIMIT = 120.0
"""Seconds beyond the steps' own time until everything has happened, or the trial fails."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A trial.

    Attributes:
        steps: that are sent, a multiple of `per_round`.
        per_second: of them.
        per_round: L.
        agent_killed: shares of the steps, below 0.8, after which the agent is killed.
        sender_killed: the same of the sender.
        away: seconds that each stays away.
        seed: of the run.
    """

    steps: int = 160
    per_second: float = 40.0
    per_round: int = 20
    agent_killed: tuple[float, ...] = (0.25, 0.6)
    sender_killed: tuple[float, ...] = (0.45,)
    away: float = 0.0
    seed: int = 5

    @property
    def seconds(self) -> float:
        """That the steps take."""
        return self.steps / self.per_second


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it.

    Attributes:
        basis: of the run.
        expected: of the same steps taken by an environment.
        transitions: that the agent has counted.
        catch_up: seconds from each restarted agent's first word until it had learnt all rounds whose steps were due
            then.
    """

    basis: str
    expected: str
    transitions: int
    catch_up: tuple[float, ...]


class Trial:
    """Runs a plan; `target` is where the sender sends, `feed` what the agent is given."""

    def __init__(self, plan: Plan, folder: Path, feed: str, target: str = "") -> None:
        self.plan, self.folder, self.feed, self.target = plan, folder, feed, target
        self._never = threading.Event()

    def run(self) -> Found:
        """Runs it, and compares."""
        plan = self.plan
        rounds = plan.steps // plan.per_round
        with started(
            *("coordinator", "--workload", "queues", "--agents", "1", "--rounds", str(rounds), "--port", "0"),
            *("--steps-per-round", str(plan.per_round), "--seed", str(plan.seed), "--run-folder", "run", "--json"),
            cwd=self.folder,
        ) as coordinator:
            assert coordinator.stdout is not None
            events = (json.loads(line) for line in coordinator.stdout)
            address = next(event["address"] for event in events if event["event"] == "listening")
            catch_up = self._broken(address)
            for _ in events:
                pass
            assert coordinator.wait(LIMIT) == 0
        document = json.loads((self.folder / "run/result.json").read_text(encoding="utf-8"))
        alone = Fleet("queues", agents=1, rounds=rounds, seed=plan.seed, steps_per_round=plan.per_round).run()
        learnt = load_result(self.folder / "site-0.npz").whole("steps")
        return Found(document["basis_sha256"], alone.basis_sha256, learnt, tuple(catch_up))

    def _broken(self, address: str) -> list[float]:
        plan = self.plan
        kills = sorted([(at, "agent") for at in plan.agent_killed] + [(at, "sender") for at in plan.sender_killed])
        held_back = int(plan.steps * _LAST)
        catch_up: list[float] = []
        with contextlib.ExitStack() as running:
            agent = running.enter_context(self._agent(address))
            self._listening(agent)
            sender = running.enter_context(self._sender(held_back))
            for share, which in kills:
                self._wait_for_steps(int(plan.steps * share))
                killed = agent if which == "agent" else sender
                killed.send_signal(signal.SIGKILL)
                killed.wait(LIMIT)
                self._never.wait(plan.away)
                if which == "sender":
                    sender = running.enter_context(self._sender(held_back))
                    continue
                agent = running.enter_context(self._agent(address))
                self._listening(agent)
                catch_up.append(self._wait_for_rounds(self._due(held_back) // plan.per_round))
            assert sender.wait(plan.seconds + LIMIT) == 0
            # The run cannot end before all kills are over.
            last = running.enter_context(self._sender(plan.steps + 1))
            assert last.wait(plan.seconds + LIMIT) == 0
            assert agent.wait(LIMIT) == 0, agent.stderr and agent.stderr.read()
        return catch_up

    def _due(self, most: int) -> int:
        """The transitions whose steps the loop has taken by now, learnt or not."""
        _, began = json.loads((self.folder / "sender.json").read_text(encoding="utf-8"))
        return int(min(most - 1, (time.time() - began) * self.plan.per_second))

    def _wait_for_steps(self, number: int) -> None:
        """Waits until step `number` was acknowledged."""
        deadline, memory = time.monotonic() + self.plan.seconds + LIMIT, self.folder / "sender.json"
        while time.monotonic() < deadline:
            if memory.exists() and json.loads(memory.read_text(encoding="utf-8"))[0] >= number:
                return
            self._never.wait(0.02)
        raise AssertionError(f"step {number} was not acknowledged")

    def _listening(self, agent: subprocess.Popen[str]) -> None:
        """Waits until the agent takes steps; what it says later is read in a thread."""
        assert agent.stdout is not None
        for line in agent.stdout:
            event = json.loads(line)
            if event["event"] == "feed":
                if self.feed.startswith("http://"):
                    # The next agent listens where the sender sends.
                    self.feed = self.target = event["place"].removesuffix("/steps")
                break
        else:
            raise AssertionError("the agent has ended")
        threading.Thread(target=agent.stdout.read, daemon=True).start()

    def _wait_for_rounds(self, rounds: int) -> float:
        """Seconds until the run has stored this number of rounds."""
        began = time.monotonic()
        while time.monotonic() < began + LIMIT:
            with contextlib.suppress(RunFileError):
                if read_state(self.folder / "run/coordinator.sqlite").rounds >= rounds:
                    return time.monotonic() - began
            self._never.wait(0.05)
        raise AssertionError(f"the run has not come to {rounds} rounds")

    @contextlib.contextmanager
    def _agent(self, address: str) -> Iterator[subprocess.Popen[str]]:
        with started(
            *("agent", "queues", "--id", "0", "--coordinator", address, "--feed", self.feed, "--json"),
            *("--output", "site-0.npz", "--checkpoint-seconds", "1"),
            cwd=self.folder,
        ) as agent:
            yield agent

    @contextlib.contextmanager
    def _sender(self, until: int) -> Iterator[subprocess.Popen[bytes]]:
        plan = self.plan
        numbers = (plan.seed, plan.steps, until, plan.per_second)
        arguments = (*map(str, numbers), str(self.folder / "sender.json"))
        sender = subprocess.Popen(
            [sys.executable, "-m", "feeding.sender", self.target, *arguments],
            cwd=self.folder,
            env=environment(PYTHONPATH=os.pathsep.join([str(TESTS), str(TESTS / "behaviour")])),
        )
        try:
            yield sender
        finally:
            sender.kill()
            sender.wait()


def judged(found: Found, plan: Plan, most_seconds: float | None) -> None:
    """Raises AssertionError where a step was lost, counted twice or late."""
    assert found.transitions == plan.steps, f"{found.transitions} transitions of {plan.steps}"
    assert found.basis == found.expected, "the bits are not those of an environment with these steps"
    if most_seconds is not None:
        assert all(seconds <= most_seconds for seconds in found.catch_up), found.catch_up
