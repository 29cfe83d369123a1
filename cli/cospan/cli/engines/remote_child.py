"""An agent process on a node of a cluster, as the fleet of `cospan run` sees its processes."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from cospan.cli.engines.agent_host import COMPLAINT, EVENT
from cospan.cli.processes.child_process import Listener
from cospan.wire.text import MAX_RECORD, printable

log = logging.getLogger(__name__)

_NEWS_SECONDS = 10.0
"""How long a node holds the answer to a question for news."""
_AGAIN_SECONDS = 1.0
_KILL_SECONDS = 2.0
_PART_BYTES = 16 << 20


class HostLostError(Exception):
    """The node, or the engine's process on it, is gone; `at_start` if the engine could not start it there."""

    def __init__(self, text: str, *, at_start: bool = False) -> None:
        super().__init__(text)
        self.at_start = at_start


class HostAwayError(Exception):
    """The node does not answer now, and may answer later; the call may have been carried out."""


class HostHandle(Protocol):
    """How an `AgentHost` on a node is called."""

    async def call(self, method: str, *arguments: object) -> Any:
        """The result of a method.

        Raises:
            HostLostError: the host is gone.
            HostAwayError: it does not answer now.
        """

    def discard(self) -> None:
        """Ends the host, wherever it is; may be called twice."""


class RemoteChild:
    """One agent process on a node; of the interface of `Child`.

    A host that is lost with its node counts as a process that SIGKILL ended: `LocalFleet` starts another.
    """

    def __init__(
        self,
        name: str,
        agents: Sequence[str],
        arguments: Sequence[str],
        host: HostHandle,
        folder: Path,
        listener: Listener,
    ) -> None:
        """Starts it.

        Args:
            name: of the process.
            agents: their names.
            arguments: of `cospan`.
            host: that it runs on.
            folder: of the agents' files; the process begins with its own file of that folder, if there is one.
            listener: who is told what it says.
        """
        self.name, self.last_line = name, ""
        self._agents, self._host, self._folder, self._listener = agents, host, folder, listener
        self._exit_code: int | None = None
        self._ending, self._pid, self._begun = "is still running", 0, False
        self._ordering: set[asyncio.Task[None]] = set()
        self._attending = asyncio.create_task(self._attend(list(arguments)))

    @property
    def running(self) -> bool:
        """Whether it has not ended, or its files are not here yet."""
        return not self._attending.done()

    @property
    def pid(self) -> int:
        """Its number on its node; 0 if unknown."""
        return self._pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code, the negative number of the signal that ended it, or None while it runs."""
        return self._exit_code

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return self._ending

    async def wait(self) -> None:
        """Waits until it has ended, everything it said has been heard, and its files are here."""
        await asyncio.shield(self._attending)

    def tell(self, line: bytes) -> None:
        """Agents are told nothing."""

    def terminate(self) -> None:
        """Asks it to stop in order; one that has not begun is ended."""
        if self._begun:
            self._order(self._stop())
        else:
            self.kill()

    def kill(self) -> None:
        """Ends it at once."""
        if self.running:
            self._order(self._kill())

    # -----------------------------------------------------------------------------------------------------------

    async def _attend(self, arguments: list[str]) -> None:
        try:
            facts = await self._ask("facts")
            log.info("%s is on %s", self.name, facts["host"])
            _check_version(facts)
            self._begun = True
            await self._ask("start", self.name, arguments, await asyncio.to_thread(self._own_file))
            await self._hear()
        except HostLostError as lost:
            self.last_line = printable(str(lost), MAX_RECORD)
            self._exit_code = 1 if lost.at_start else -signal.SIGKILL
            self._ending = "could not be started on a node" if lost.at_start else "was lost with its node"
        else:
            await self._bring_back()
        finally:
            self._host.discard()
        self._listener.on_exit(self)

    async def _hear(self) -> None:
        """Passes on what the process says, until it has ended."""
        seen = 0
        while True:
            for kind, value in await self._ask("news", seen, _NEWS_SECONDS):
                seen += 1
                if kind == EVENT:
                    self._listener.on_event(self, value)
                elif kind == COMPLAINT:
                    self.last_line = value
                    self._listener.on_complaint(self, value)
                else:
                    self._exit_code, self._ending = value["code"], value["ending"]
                    self.last_line, self._pid = value["last_line"], value["pid"]
                    return

    async def _bring_back(self) -> None:
        """Copies the files that the process has left into the folder."""
        try:
            for name, size in (await self._ask("files")).items():
                path = self._folder / Path(name).name
                part = path.with_name(f"{path.name}.part")
                with part.open("wb") as file:
                    while file.tell() < size:
                        file.write(await self._ask("read", name, file.tell(), _PART_BYTES))
                part.replace(path)
            await self._ask("clear")
        except (HostLostError, OSError) as failure:
            why = f"its file was not brought back from its node: {printable(str(failure), MAX_RECORD)}"
            for agent in self._agents:
                self._listener.on_event(self, {"event": "agent-failed", "agent": agent, "message": why})

    def _own_file(self) -> Mapping[str, bytes]:
        path = self._folder / f"{self.name}.npz"
        return {path.name: path.read_bytes()} if path.is_file() else {}

    async def _ask(self, method: str, *arguments: object) -> Any:
        """Calls a method until the host answers or is lost."""
        while True:
            try:
                return await self._host.call(method, *arguments)
            except HostAwayError as away:
                log.info("%s: its node does not answer: %s", self.name, away)
                await asyncio.sleep(_AGAIN_SECONDS)

    def _order(self, what: Any) -> None:
        task = asyncio.ensure_future(what)
        self._ordering.add(task)
        task.add_done_callback(self._ordering.discard)

    async def _stop(self) -> None:
        with contextlib.suppress(HostLostError):
            await self._ask("stop")

    async def _kill(self) -> None:
        with contextlib.suppress(HostLostError, HostAwayError, TimeoutError):
            if self._begun:
                await asyncio.wait_for(self._host.call("kill"), _KILL_SECONDS)
        if self._exit_code is None:  # otherwise its files are on their way
            self._host.discard()


def _check_version(facts: Mapping[str, str]) -> None:
    """Checks that a node has this version of Cospan.

    Raises:
        HostLostError: it has another one.
    """
    if facts["version"] != version("cospan"):
        raise HostLostError(
            f"{printable(facts['host'])} has Cospan {printable(facts['version'])}, and this machine has "
            f"{version('cospan')}; install the same version on all nodes",
            at_start=True,
        )
