"""A coordinator process and its agent processes on this machine, from their start to their end.

The coordinator owns the run folder and decides when the run is over; every agent saves its own file. This parent
starts the processes, reads their output, and ends them: in order if possible, otherwise by SIGKILL.
"""

import asyncio
import contextlib
import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from cospan.cli.output.exit_codes import INTERRUPTED
from cospan.cli.output.log_lines import log_to_file, stop_logging
from cospan.cli.output.progress import View
from cospan.cli.output.run_problems import Warnings
from cospan.cli.processes.admin_client import watch_rounds
from cospan.cli.processes.agent_argv import arguments_of
from cospan.cli.processes.child_process import AnyChild, Child, Listener
from cospan.cli.processes.dashboard import TruthTeller
from cospan.cli.processes.this_process import on_stop_signal
from cospan.cli.run_folder.layout import RunFolder, point_to_newest_of, write_text
from cospan.cli.run_folder.progress_log import AgentProgress, RunMonitor
from cospan.cli.run_folder.resume import ErrorsFile, Resumption, mend_last_line, recollect
from cospan.cli.run_folder.run_result import RunFailedError
from cospan.cli.settings.run_specification import RunPlan
from cospan.client.placement import Host
from cospan.wire.errors import CospanError, UsageError
from cospan.wire.files.spec_file import to_toml
from cospan.wire.limits import max_message_bytes
from cospan.wire.text import listed

log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_REDRAW_SECONDS = 0.25
_RETRY_SECONDS = 0.2
_SAVE_SECONDS = 20.0
"""For agents to save their files after the run, and for the coordinator to complete its own."""
_SAVE_SECONDS_PER_AGENT = 0.03
"""The same for each agent of the largest group, which sums up all and writes up to 100 kB for each of them."""
_STOP_SECONDS = 5.0
_LAST_ROUNDS_SECONDS = 2.0


class Nodes(Protocol):
    """Where agents run that do not run on this machine.

    Attributes:
        host: the address of this machine that they reach.
    """

    host: str

    def start(self, agents: Host, arguments: Sequence[str], folder: RunFolder, listener: Listener) -> AnyChild:
        """Starts an agent process there; its files come back into the folder."""


class LocalFleet:
    """The processes of one run. After `run`:

    * `failure`: why the run could not start, or None;
    * `interrupted`: the signal that ended it, or "";
    * `complaint`: what the coordinator failed with, or "";
    * `losses`: why agents were lost, by name;
    * `left`: the agents that left on request before the run was over;
    * `warnings`: of the agents;
    * `coordinator_interrupted`: whether a signal ended the coordinator, so that the run can be resumed;
    * `deserted`: how the last agent process ended if all ended before the run was over, or "".
    """

    def __init__(
        self,
        plan: RunPlan,
        folder: RunFolder,
        monitor: RunMonitor,
        view: View,
        hosts: Sequence[Host],
        *,
        start_seconds: float,
        debug: bool,
        resumption: Resumption | None = None,
    ) -> None:
        self.failure: CospanError | None = None
        self.interrupted = ""
        self.complaint = ""
        self.losses: dict[str, str] = {}
        self.left: set[str] = set()
        self.warnings = Warnings(view)
        self.deserted = ""
        self.coordinator_interrupted = False
        self._resumption, self._errors = resumption, ErrorsFile(folder)
        self._plan, self._folder, self._monitor, self._view = plan, folder, monitor, view
        self._truths = TruthTeller(monitor)
        self._hosts = {host.name: host for host in hosts}
        self._start_seconds, self._debug = start_seconds, debug
        self._save_seconds = _SAVE_SECONDS + _SAVE_SECONDS_PER_AGENT * max(len(host.indices) for host in hosts)
        self._coordinator: AnyChild | None = None
        self._agents: dict[str, AnyChild] = {}
        self._address = ""
        self._restarts: Counter[str] = Counter()
        self._restarting: dict[str, asyncio.Task[None]] = {}
        self._last_words: dict[str, dict[str, Any]] = {}
        self._listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._started = False
        self._nodes: Nodes | None = None

    def place_agents(self, nodes: Nodes | None) -> None:
        """Has agents run on these nodes, or for None here; before `run`."""
        self._nodes = nodes

    async def run(self) -> None:
        """From the start of the processes to the end of the last of them."""
        on_stop_signal(self._interrupt)
        ticking = asyncio.create_task(self._tick())
        handler = None
        if self._resumption is not None:
            mend_last_line(self._folder.log)
            if self._resumption.stored is not None:
                recollect(self._monitor, self._folder, self._errors)
                of = f" of {self._plan.specification.rounds}" if self._plan.specification.rounds else ""
                self._view.note(f"resuming {self._folder.path}: {len(self._monitor.rows)}{of} rounds are done")
        try:
            with tempfile.TemporaryDirectory(prefix="cospan-") as temporary:
                address = await self._start_coordinator(Path(temporary))
            if address:
                with contextlib.suppress(OSError):  # the old result of a resumed run
                    self._folder.result.unlink(missing_ok=True)
                handler = log_to_file(self._folder.log)
                await self._run_agents(address)
        finally:
            ticking.cancel()
            await self._end_all()
            self._errors.add(self._monitor.rows)
            if handler is not None:
                stop_logging(handler)

    # Starting ---------------------------------------------------------------------------------------------------

    async def _start_coordinator(self, temporary: Path) -> str:
        """The coordinator's address; empty if it ended before it listened."""
        spec_file = temporary / "spec.toml"
        write_text(spec_file, to_toml(self._plan.specification))
        stored = self._resumption is not None and self._resumption.stored is not None
        which = ["--reopen"] if stored else ["--spec", str(spec_file)]
        arguments = [
            *("coordinator", "--json", *which, "--run-folder", str(self._folder.path)),
            *("--host", self._nodes.host if self._nodes else _HOST, "--port", str(self._plan.settings.port or 0)),
            *(("--insecure",) if self._nodes else ()),
            *("--start-seconds", str(self._start_seconds)),
            *("--checkpoint-interval", str(self._plan.settings.checkpoint_interval)),
        ]
        for name in ("dashboard", "dashboard_token_file", "dashboard_root_path", "allowed_hosts"):
            said = getattr(self._plan.settings, name)
            if said is not None:
                arguments += [f"--{name.replace('_', '-')}", said]
        self._coordinator = await self._start("coordinator", arguments)
        await asyncio.wait([self._listening], timeout=self._start_seconds)
        if not self._listening.done():
            self._fail(RunFailedError(f"the coordinator did not listen within {self._start_seconds:g} s"))
            return ""
        return self._listening.result()

    async def _run_agents(self, address: str) -> None:
        """Starts the agents, and waits for the end of the run."""
        assert self._coordinator is not None
        self._address = address
        self._folder.agents.mkdir(exist_ok=True)
        watching = asyncio.create_task(self._watch(address, self._coordinator))
        for name, host in self._hosts.items():
            if self.failure is None and not self.interrupted:
                self._agents[name] = await self._start(name, arguments_of(host, self._plan, self._folder, address))
        await self._coordinator.wait()
        await asyncio.wait([watching], timeout=_LAST_ROUNDS_SECONDS)
        watching.cancel()

    async def _start(self, name: str, arguments: list[str]) -> AnyChild:
        """Starts a process that the run cannot begin without.

        Raises:
            RunFailedError: it cannot be started.
        """
        try:
            return await self._process(name, arguments)
        except RunFailedError as failure:
            self._fail(failure)
            raise

    async def _process(self, name: str, arguments: list[str]) -> AnyChild:
        try:
            claim = self._folder.claim
            inherits = () if claim is None else (claim.descriptor,)
            debug = ("--debug",) if self._debug else ()
            if self._nodes is not None and name in self._hosts:
                return self._nodes.start(self._hosts[name], [*arguments, *debug], self._folder, self)
            return await Child.start(name, [*arguments, *debug], self, inherits=inherits)
        except OSError as failure:
            raise RunFailedError(
                f"cannot start the process of {name}: {failure.strerror}; start fewer agents"
            ) from failure

    # Listening -------------------------------------------------------------------------------------------------

    def on_event(self, child: AnyChild, document: dict[str, Any]) -> None:
        """A child said something."""
        event = document["event"]
        if event in ("finished", "failed"):
            self._last_words.setdefault(child.name, document)
        if event == "failed" and child.name == "coordinator":
            self.complaint = document["message"]
        if event == "note" and child is not self._coordinator:
            log.info("%s: %s", child.name, document["message"])
            if not document["exact"]:
                self._view.tell(f"{child.name}: {document['message']}")
        if child is not self._coordinator and child.name in self._agents:
            self._on_agent_event(child, document)
            return
        match event:
            case "listening":
                self._listening.set_result(document["address"])
            case "dashboard":
                self._view.tell(f"dashboard: {document['address']}")
            case "agent-joined":
                self._monitor.joined += len(document["agents"])
            case "run-started" | "run-resumed":
                self._started = True
                point_to_newest_of(self._folder)
            case "agent-gone" if self._started or self._resumption is None:  # those of a resumed run start again
                self._view.note(
                    f"round {document['round']}: {listed(document['agents'])} is gone: {document['message']}"
                )

    def _on_agent_event(self, child: AnyChild, document: dict[str, Any]) -> None:
        match document["event"]:
            case "progress" | "finished" if document.get("rounds"):
                self._monitor.add_agent(AgentProgress.of_document(document))
            case "warning":
                self.warnings.add(document["agent"], document["kind"], document["message"])
            case "agent-failed":
                self._lose((document["agent"],), document["message"])
        if document.get("left"):
            self.left.update(self._hosts[child.name].agents)

    def _lose(self, agents: Sequence[str], why: str) -> None:
        """Records agents that failed while the run continues, in log and view."""
        self.losses |= dict.fromkeys(agents, why)
        shown = listed(agents)
        log.warning("%s failed: %s", shown, why)  # not an error, which would be shown twice
        self._view.tell(f"{shown} failed: {why}")

    def on_complaint(self, child: AnyChild, text: str) -> None:
        """A child wrote to its standard error."""
        log.info("%s says: %s", child.name, text)
        if self._debug:
            self._view.note(f"{child.name}: {text}")

    def on_exit(self, child: AnyChild) -> None:
        """A child has ended."""
        log.info("%s (process %d) %s", child.name, child.pid, child.ending)
        if child.name == "coordinator":
            self._on_coordinator_exit(child)
        elif self.failure is None and not self.interrupted:
            self._on_agent_exit(child)

    def _on_coordinator_exit(self, child: AnyChild) -> None:
        if not self._listening.done():
            if not self.interrupted:
                self._fail(self._error_of(child, f"the coordinator {child.ending} before it listened"))
            self._listening.set_result("")
        self.coordinator_interrupted = child.exit_code == INTERRUPTED
        if self._last_words.get(child.name, {}).get("event") != "finished":  # else it has told them
            self._stop_agents()

    def _start_again(self, child: AnyChild) -> bool:
        """Starts an agent's process again that a signal has ended, a few times; whether it does.

        Its round waits for it until the session timeout. Its own failures are not repeated: they would come again.
        """
        code, coordinator = child.exit_code, self._coordinator
        if code is None or code >= 0 or not self._started or coordinator is None or not coordinator.running:
            return False
        if child.name in self._last_words:  # it had finished or failed before the signal came
            return False
        if self._restarts[child.name] >= self._plan.settings.agent_restarts:
            return False
        self._restarts[child.name] += 1
        self._view.tell(f"{child.name}: its process {child.ending}; it is started again")
        log.warning("%s: its process %s; it is started again", child.name, child.ending)

        async def start() -> None:
            arguments = arguments_of(self._hosts[child.name], self._plan, self._folder, self._address)
            try:
                again = self._agents[child.name] = await self._process(child.name, arguments)
            except RunFailedError as failure:  # the others learn on
                del self._restarting[child.name]
                self._lose_all_of(child, str(failure), failure)
                return
            if self.failure is not None or not coordinator.running:
                again.terminate()

        task = self._restarting[child.name] = asyncio.create_task(start())
        task.add_done_callback(lambda _: self._restarting.pop(child.name, None))
        return True

    def _on_agent_exit(self, child: AnyChild) -> None:
        """An agent that failed before its first round was done is a fleet that cannot begin."""
        if self._start_again(child):
            return
        words = self._last_words.get(child.name, {})
        if words.get("event") == "finished":
            return
        error = self._error_of(child, f"{child.name} {child.ending}")
        cannot_begin = words.get("rounds") == 0 and not self._restarts[child.name]
        if cannot_begin or not (self._started or self._is_over):
            self._fail(error)
            return
        self._lose_all_of(child, words.get("message", with_last_line(child, f"its process {child.ending}")), error)

    @property
    def _is_over(self) -> bool:
        """Whether the coordinator has said how the run ended."""
        return "coordinator" in self._last_words

    def _lose_all_of(self, child: AnyChild, why: str, error: CospanError) -> None:
        """Records the loss of a process's agents; if it was the last process, stops the coordinator."""
        self._lose([name for name in self._hosts[child.name].agents if name not in self.losses], why)
        others = any(agent.running for agent in self._agents.values() if agent is not child)
        if not self._is_over and not others and not self._restarting:
            self.deserted = str(error)
            self._stop_coordinator()

    def _error_of(self, child: AnyChild, otherwise: str) -> CospanError:
        """What a child failed with, as an error of this process."""
        words = self._last_words.get(child.name, {})
        kind = UsageError if words.get("exit_code") == UsageError.exit_code else RunFailedError
        return kind(words.get("message", with_last_line(child, otherwise)))

    async def _watch(self, address: str, coordinator: AnyChild) -> None:
        """Follows the rounds; a stream that breaks is opened again while the coordinator is there."""
        spec = self._plan.specification
        while coordinator.running:
            try:
                async for report in watch_rounds(
                    address,
                    from_round=len(self._monitor.rows),
                    include_basis=self._monitor.true_basis is not None,
                    message_bytes=max_message_bytes(
                        spec.feature_dim, spec.rank, spec.agents, pooled=spec.pooled_length
                    ),
                ):
                    self._monitor.add_round(report)
                return
            except CospanError as failure:
                log.warning("the rounds cannot be watched: %s", failure)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _tick(self) -> None:
        while True:
            self._view.update(self._monitor.progress())
            self._errors.add(self._monitor.rows)
            if self._plan.settings.dashboard is not None and self._coordinator is not None:
                line = self._truths.news()
                if line is not None:
                    self._coordinator.tell(line)
            await asyncio.sleep(_REDRAW_SECONDS)

    # Ending ----------------------------------------------------------------------------------------------------

    def _interrupt(self, name: str) -> None:
        """The first signal ends the run in order, the second at once."""
        if self.interrupted:
            if name != "SIGHUP":  # a terminal that closes may send several
                for child in self._children:
                    child.kill()
            return
        self.interrupted = name
        self._stop_coordinator()
        if not self._started:
            self._stop_agents()
        self._view.note(f"{name}: stopping; press Ctrl-C again to kill")

    def _fail(self, error: CospanError) -> None:
        """The run cannot begin."""
        if self.failure is None:
            self.failure = error
        self._stop_coordinator()
        self._stop_agents()

    def _stop_coordinator(self) -> None:
        """Asks it to stop in order; where it does not, it is ended all the same."""
        if self._coordinator is not None:
            self._coordinator.terminate()
            asyncio.get_running_loop().call_later(self._save_seconds, self._coordinator.kill)

    def _stop_agents(self) -> None:
        for agent in self._agents.values():
            agent.terminate()

    @property
    def _children(self) -> list[AnyChild]:
        return [*([self._coordinator] if self._coordinator else []), *self._agents.values()]

    async def _end_all(self) -> None:
        """Gives each process time to save, and then ends it."""
        await asyncio.gather(*self._restarting.values(), return_exceptions=True)
        if await self._all_ended(self._save_seconds):
            return
        for child in self._children:
            child.terminate()
        if await self._all_ended(_STOP_SECONDS):
            return
        for child in self._children:
            child.kill()
        await self._all_ended(_STOP_SECONDS)

    async def _all_ended(self, seconds: float) -> bool:
        waits = [asyncio.ensure_future(child.wait()) for child in self._children if child.running]
        if not waits:
            return True
        _, pending = await asyncio.wait(waits, timeout=seconds)
        for wait in pending:
            wait.cancel()
        return not pending


def with_last_line(child: AnyChild, sentence: str) -> str:
    """The sentence on a child's end, with what the child said last."""
    last = child.last_line.removeprefix("cospan: ")
    return f"{sentence}; it said last: {last}" if last else sentence
