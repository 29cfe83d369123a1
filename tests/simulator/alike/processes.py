"""The stage of real processes: SIGKILL, SQLite and loopback gRPC."""

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from faults.evidence import stored_rounds

from cospan.server.storage.reader import read_state
from simulator.alike.agent_main import LEAVE, SEND, run_agent
from simulator.alike.coordinator_main import run_coordinator
from simulator.alike.script import Ended, Script, Standing, names
from simulator.plan import Settings
from simulator.world import specification_of

_LONGEST_SECONDS = 120.0
"""Until something happens that the script waits for."""
_SESSION_TIMEOUT_SECONDS = 60.0
"""No process is given up because the machine is busy."""
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["simulator.alike.agent_main", "simulator.alike.coordinator_main"])
_COORDINATOR = "coordinator"


class RealStage:
    """Stage of processes of this machine, in a new folder."""

    def __init__(self, script: Script, folder: Path) -> None:
        settings = Settings(processes=(1,) * len(names()), rounds=script.rounds, min_cohort=script.min_cohort)
        self._specification = replace(specification_of(settings), session_timeout_seconds=_SESSION_TIMEOUT_SECONDS)
        self._folder, self._address = folder / "run", folder / "address"
        self._store = self._folder / "coordinator.sqlite"
        self.standing: Standing | None = None
        self.learnt: dict[str, int] = {}
        self.is_over = False
        self._processes: dict[str, tuple[ForkServerProcess, Connection]] = {}
        self._starts = itertools.count()

    @contextmanager
    def running(self) -> Iterator["RealStage"]:
        """Starts everything; afterwards nothing of it runs."""
        try:
            self._start_coordinator()
            for agent in names():
                self.start(agent)
            yield self
        finally:
            for name in list(self._processes):
                self._end(name)

    def _spawn(self, name: str, main: Callable[..., None], *arguments: Any) -> None:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=main, args=(theirs, *arguments), name=name, daemon=True)
        process.start()
        theirs.close()
        self._processes[name] = process, ours

    def _end(self, name: str) -> None:
        process, pipe = self._processes.pop(name)
        process.kill()
        process.join(_LONGEST_SECONDS)
        pipe.close()

    def _start_coordinator(self) -> None:
        self._spawn(_COORDINATOR, run_coordinator, self._specification, self._folder, self._address)

    def happen(self) -> None:
        """The next thing that a process says, or its end."""
        pipes = {pipe: name for name, (_, pipe) in self._processes.items()}
        ready = wait(pipes, timeout=_LONGEST_SECONDS)
        assert ready, f"the script waits in vain: {self.standing}, {self.learnt}"
        for pipe in ready:
            assert isinstance(pipe, Connection)
            self._hear(pipes[pipe], pipe)

    def _hear(self, name: str, pipe: Connection) -> None:
        try:
            said = pipe.recv()
        except EOFError:
            self._has_ended(name)
            return
        if name == _COORDINATOR:
            self.standing = said
        else:
            self.learnt[name] = said

    def _has_ended(self, name: str) -> None:
        process, pipe = self._processes.pop(name)
        self.learnt.pop(name, None)
        process.join(_LONGEST_SECONDS)
        pipe.close()
        assert process.exitcode == 0, f"{name} has ended with {process.exitcode}"
        self.is_over = self.is_over or name == _COORDINATOR

    def send(self, agent: str) -> None:
        """Tells it so."""
        del self.learnt[agent]
        self._tell(agent, SEND)

    def _tell(self, agent: str, what: str) -> None:
        self._processes[agent][1].send(what)

    def start(self, agent: str) -> None:
        """A new process."""
        self._spawn(agent, run_agent, agent, f"{agent} {next(self._starts)}", self._address)

    def kill(self, agent: str) -> None:
        """SIGKILL."""
        self.learnt.pop(agent, None)
        self._end(agent)

    def leave(self, agent: str) -> None:
        """In order; its process ends by itself."""
        self.learnt.pop(agent, None)
        self._tell(agent, LEAVE)
        process, pipe = self._processes.pop(agent)
        process.join(_LONGEST_SECONDS)
        assert process.exitcode == 0, f"{agent} has ended with {process.exitcode}"
        pipe.close()

    def restart_coordinator(self, meanwhile: Callable[[], None]) -> None:
        """SIGKILL, and another process at another port."""
        if _COORDINATOR in self._processes:
            self._end(_COORDINATOR)
        self.standing = None
        meanwhile()
        self.is_over = read_state(self._store).finish_cause is not None
        if not self.is_over:
            self._start_coordinator()

    def ended(self) -> Ended:
        """Of the store."""
        rows = stored_rounds(self._store)
        return tuple((tuple(sorted(row.contributors)), row.basis_sha256) for row in rows)
