"""A coordinator and its agents as processes, with something in between that can be broken."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from behaviour.bridge import Bridge
from faults.evidence import Evidence
from faults.processes import TESTS, Kept, Life, cospan, free_port

from cospan.cli.commands.status import status_lines
from cospan.cli.processes.admin_client import fetch_run
from cospan.server.storage.reader import read_state
from cospan.wire.errors import CospanError
from cospan.wire.messages import AgentPhase, RunPhase, RunReport

WORKLOAD = "paced:rings"
_PROGRESS_TIMEOUT_SECONDS = 300.0
_ANSWER_SECONDS = 3.0
_NAMES_AFTER_SECONDS = 1.0


class FaultyError(AssertionError):
    """Something that must not happen has happened."""


class Fleet:
    """One run: `flags` are those of the coordinator, and `witnesses` of the agents say what they hear and send.

    Each step of an agent takes `pace` seconds; only while the file `pace_while` is there, where one is named.
    """

    def __init__(
        self,
        folder: Path,
        flags: list[str],
        *,
        agents: int,
        witnesses: int,
        bridged: bool,
        pace: float,
        pace_while: Path | None = None,
    ) -> None:
        self.run_folder = folder / "run"
        self.store = self.run_folder / "coordinator.sqlite"
        self.address = f"127.0.0.1:{free_port()}"
        self.evidence = Evidence()
        self.moved = asyncio.Condition()
        self.notes: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the coordinator has ended for good."""
        self._folder = folder
        self._paced = {"PACE_SECONDS": str(pace), "PACE_WHILE": str(pace_while or "")}
        self._witnesses, self._bridged = witnesses, bridged
        port = self.address.rpartition(":")[2]
        command = cospan("coordinator", "--workload", WORKLOAD, *flags, "--json")
        command += ["--port", port, "--run-folder", str(self.run_folder)]
        self.coordinator = self._kept("coordinator", command, self.notes.append)
        self.coordinator.over = lambda _: self._is_over()
        self.coordinator.before_start = self.check_store
        self.agents: list[Kept] = []
        self.bridges: list[Bridge] = []
        self._count = agents

    def _kept(self, name: str, command: list[str], on_line: Callable[[dict[str, Any]], None]) -> Kept:
        return Kept(name, command, self._folder, on_line, **self._paced)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Starts everything; afterwards nothing of it runs."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "agents").mkdir(exist_ok=True)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._close)
            self.coordinator.start()
            for index in range(self._count):
                address = self.address
                if self._bridged:
                    bridge = await stack.enter_async_context(Bridge(self.address))
                    self.bridges.append(bridge)
                    address = bridge.address
                self.agents.append(self._agent(index, address))
            async with asyncio.timeout(60.0):
                await self.coordinator.listening.wait()
            for agent in self.agents:
                agent.start()
            yield

    def _agent(self, index: int, address: str) -> Kept:
        name, kept_in = f"site-{index}", str(self._folder / "agents")
        if index < self._witnesses:
            python = cospan()[0]
            command = [python, str(TESTS / "faults" / "witness.py"), WORKLOAD, str(index), address, kept_in]
            return self._kept(
                name, [*command, str(_PROGRESS_TIMEOUT_SECONDS)], lambda line: self._heard(name, line)
            )
        flags = ["--id", str(index), "--coordinator", address, "--output", kept_in, "--json"]
        flags += ["--progress-timeout-seconds", str(_PROGRESS_TIMEOUT_SECONDS), "--no-baseline"]
        return self._kept(name, cospan("agent", WORKLOAD, *flags), lambda _: None)

    async def _close(self) -> None:
        await asyncio.gather(*(kept.close() for kept in (*self.agents, self.coordinator)))

    # What is known ----------------------------------------------------------------------------------------------

    def _heard(self, agent: str, line: dict[str, Any]) -> None:
        if line["kind"] in ("failed", "ended"):
            return
        newest = self.evidence.newest
        self.evidence.hear(agent, line)
        if self.evidence.newest > newest:
            task = asyncio.ensure_future(self._tell())
            task.add_done_callback(lambda _: None)

    async def _tell(self) -> None:
        async with self.moved:
            self.moved.notify_all()

    async def reached(self, number: int) -> None:
        """Waits until a witness has been told of this round."""
        async with self.moved:
            await self.moved.wait_for(lambda: self.evidence.newest >= number)

    def _is_over(self) -> bool:
        """Whether the store says so."""
        over = self.store.exists() and read_state(self.store).finish_cause is not None
        if over and not self.finished.done():
            self.finished.set_result(None)
        return over

    async def ended_once_more(self, kept: Kept) -> None:
        """Waits for the end of the process that runs now."""
        await kept.ended_once.wait()

    def check_store(self) -> None:
        """With the coordinator down: what it has promised is there."""
        self.problems += self.evidence.lost(self.store)

    async def report(self) -> RunReport | None:
        """What the coordinator says; None where it does not answer in time."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await fetch_run(self.address)
        except (CospanError, TimeoutError):
            return None

    def lives(self) -> list[Life]:
        """All processes that have ended."""
        return [life for kept in (self.coordinator, *self.agents) for life in kept.lives]

    def tracebacks(self) -> list[str]:
        """What no process may say."""
        kept = [(each.name, each.errors()) for each in (self.coordinator, *self.agents)]
        return [f"{name} has failed:\n{text[-3000:]}" for name, text in kept if "Traceback" in text]


def silent_wait(report: RunReport) -> str:
    """What is wrong with how a coordinator says whom it waits for; empty when all is well."""
    lines = "\n".join(status_lines(report))
    missing = [agent.agent_id for agent in report.agents if agent.awaited or agent.phase is AgentPhase.LOST]
    if report.phase_seconds < _NAMES_AFTER_SECONDS or report.phase not in (RunPhase.COLLECTING, RunPhase.WAITING):
        return ""
    first = lines.splitlines()[1]
    if report.phase is RunPhase.COLLECTING and not (missing and missing[0]):
        all_gone = all(agent.phase is AgentPhase.GONE for agent in report.agents)
        return "" if all_gone else f"round {report.stamp.round} waits for no named agent:\n{lines}"
    return "" if not missing or any(name in first for name in missing) else f"no missing agent is named:\n{lines}"
