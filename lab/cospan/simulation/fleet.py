"""`Fleet`: a whole run in this process, as an object of a program or a notebook."""

import contextlib
import math
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from cospan.client.environment.ownership import closing_on_failure
from cospan.client.environment.workload_loader import load_workload, true_basis
from cospan.client.learning.agent_of_group import AgentOfGroup
from cospan.client.learning.default_run import DEFAULT_PRESET
from cospan.client.learning.run_config import specify_with_site
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.placement import hosts_of
from cospan.client.workload import Workload
from cospan.core.linalg.subspace import principal_angle_sine
from cospan.core.specification import RunSpecification
from cospan.server.machine.events import Note
from cospan.simulation.fleet_result import FleetResult, LearntBy, result_of
from cospan.simulation.improvement import Improvement, ImprovementSettings
from cospan.simulation.improvement_result import ImprovementResult
from cospan.simulation.local_run import AnyLearner, LocalRun
from cospan.wire.console import say
from cospan.wire.errors import InvalidValueError
from cospan.wire.messages import RoundReport

_REDRAW_SECONDS = 0.25


class Fleet:
    """A coordinator and its agents in this process, without a network.

        fleet = Fleet("queues", agents=12, rounds=200, seed=1)
        result = fleet.run()
        result.value_error; result.rounds["value_error"]; result.agents[3].value(observation)

    The same seed gives the same bits as `cospan run --in-process`, and as a run over the network in which every
    agent takes part in every round. It blocks, and may be used where an event loop runs, as in a notebook: it needs
    no loop.
    """

    def __init__(
        self,
        workload: Workload | str,
        *,
        agents: int | None = None,
        rounds: int | None = None,
        seed: int = 0,
        preset: str = DEFAULT_PRESET,
        groups: int | None = None,
        baseline: bool | None = None,
        **constants: Any,
    ) -> None:
        """Makes the sites; nothing is learnt yet.

        Args:
            workload: a workload, or its name as on the command line.
            agents: number of agents; by default all sites of the workload, or 8 if it has no number of sites.
            rounds: number of rounds; 0 for no end, with `step`. By default 300, or as many as the data of the
                workload need.
            seed: of the run.
            preset: of the method's constants: paper, practical, compact or full-history.
            groups: number of groups of agents, which are much faster for hundreds of agents; an agent sees the same
                data and learns the same up to rounding. None for single agents.
            baseline: whether TD alone learns beside each agent; by default unless there are groups.
            constants: of the method and of the run; see `cospan.client.specify`.

        Raises:
            InvalidValueError: a value is not allowed.
            WorkloadError: there is no such workload or site.
            WorkloadBehaviourError: the workload's own code raised.
        """
        made = load_workload(workload) if isinstance(workload, str) else workload
        found, first = specify_with_site(
            workload, agents=agents, rounds=rounds, seed=seed, preset=preset, **constants
        )
        self.on_round: list[Callable[[RoundReport], None]] = []
        """Called with each round that has closed."""
        self._reports: list[RoundReport] = []
        self._subspace_errors: list[float] = []
        self._workload = made
        self._departures: dict[str, str] = {}
        self._failures: dict[str, str] = {}
        self._in_round = False
        self._dropped: list[LearntBy] = []
        with closing_on_failure(first):
            self._true_basis = true_basis(made, found)
            hosts = hosts_of(found, groups)
        run_id = secrets.token_hex(8)
        self._run = LocalRun(found, made, hosts, run_id=run_id, baseline=baseline, first_site=first)
        self._run.on_round.append(self._on_round)
        self._run.on_note.append(self._on_note)
        self._run.on_failure.append(self._on_failure)
        self._run.on_gone.append(self._on_gone)
        try:
            self._run.join_all()
        except BaseException:
            self.close()
            raise
        self._learners: list[AnyLearner] = [self._run.learners[host.name] for host in hosts]
        self._threads = ThreadpoolController()

    @classmethod
    def from_logs(cls, data: Path | str, mapping: Path | str, **options: Any) -> "Fleet":
        """A fleet that learns from logs: a folder with a file or folder for each site, see docs/your-logs.md.

            result = Fleet.from_logs("stations/", "fleet.toml").run()

        Args:
            data: the folder, a file, or a pattern as "stations/*.csv".
            mapping: the TOML file that says which columns are observation, reward and time.
            options: those of `Fleet`, but `workload`; by default it runs until all logs are learnt.

        Raises:
            CospanError: the mapping or a log cannot be used; the text says where and what to do.
        """
        from cospan.client.logs.log_workload import log_fleet

        return cls(log_fleet(Path(mapping), str(data)).workload, **options)

    @classmethod
    def from_frames(
        cls, frames: Mapping[str, Any], mapping: Mapping[str, Any] | Path | str, **options: Any
    ) -> "Fleet":
        """A fleet that learns from data frames of pandas or polars.

            Fleet.from_frames({"north": north, "south": south}, "fleet.toml").run()

        Args:
            frames: by the names of the sites; any object with `columns` whose columns have `to_numpy()`.
            mapping: a TOML file, or its tables as a dictionary.
            options: those of `Fleet`, but `workload`.

        Raises:
            CospanError: the mapping or a frame cannot be used.
        """
        from cospan.client.logs.log_workload import LogFleet

        return cls(LogFleet.of_frames(frames, mapping).workload, **options)

    @property
    def specification(self) -> RunSpecification:
        """Of the run."""
        return self._run.state.specification

    @property
    def rounds_done(self) -> int:
        """Number of closed rounds."""
        return len(self._reports)

    @property
    def is_over(self) -> bool:
        """Whether no round follows."""
        return self._run.is_over

    @property
    def result(self) -> FleetResult:
        """What has been learnt so far; later rounds do not change it."""
        return result_of(
            self._run.state,
            reports=self._reports,
            subspace_errors=self._subspace_errors,
            learners=self._learners,
            dropped=self._dropped,
            departures=self._departures,
            message=self._run.message,
        )

    def close(self) -> None:
        """Closes the environments, which ends the run; a run that is over has closed them."""
        self._run.close()

    def run(self, *, progress: bool | None = None) -> FleetResult:
        """Runs all remaining rounds; returns what has been learnt.

        An interrupt (Ctrl-C, or a notebook's stop button) is raised when the current round is done:
        its `result` is consistent then, and `run` continues it. A second interrupt aborts at once.

        Args:
            progress: whether to show progress on standard error; by default on a terminal and in a notebook.

        Raises:
            InvalidValueError: the run has no end, or was aborted in the middle of a round.
            WorkloadBehaviourError: a workload broke its contract in its first round; later on, its agents leave.
        """
        if not self.specification.rounds:
            raise InvalidValueError("rounds is 0, so this run has no end; run some with step(rounds=…)")
        return self._run_rounds(self.specification.rounds - self.rounds_done, progress)

    def step(self, rounds: int = 1, *, progress: bool | None = False) -> FleetResult:
        """Runs up to `rounds` more rounds; see `run`.

        Args:
            rounds: 1 or more.
            progress: see `run`.
        """
        if rounds < 1:
            raise InvalidValueError(f"rounds is {rounds}; a step runs 1 or more")
        return self._run_rounds(rounds, progress)

    def improve(self, settings: ImprovementSettings | None = None) -> ImprovementResult:
        """Improves the agents' policies step by step, with this fleet's sites, seed and constants.

        It takes the place of `run`: its rounds are those of the settings, and this fleet is closed.

        Args:
            settings: how many steps, how long, and what a new policy has to pass.

        Raises:
            InvalidValueError: rounds have been run, a setting is out of its range, or the sites do not say
                what their actions lead to (`Site.decisions`).
        """
        if self._reports:
            raise InvalidValueError("this fleet has run rounds; make a new one to improve its policies")
        self.close()
        return Improvement(self._workload, self.specification, settings).run()

    def _run_rounds(self, rounds: int, progress: bool | None) -> FleetResult:
        if self._in_round:
            raise InvalidValueError("this fleet was aborted in the middle of a round; make a new one")
        line = _Line(self.rounds_done + rounds) if _is_watched(progress) else None
        # One BLAS thread, as everywhere: more gain nothing on small matrices, and may round otherwise.
        with self._threads.limit(limits=1), _interrupt_after_round() as is_interrupted:
            try:
                for _ in range(rounds):
                    if self.is_over or is_interrupted():
                        break
                    self._in_round = True
                    self._run.run_round()
                    self._in_round = False
                    if line is not None:
                        line.say(self.rounds_done)
            finally:
                if line is not None:
                    line.end(self.rounds_done)
                if self.is_over or self._in_round:
                    self.close()
        return self.result

    def _on_round(self, report: RoundReport) -> None:
        basis, truth = report.basis, self._true_basis
        error = math.nan if basis is None or truth is None else principal_angle_sine(basis, truth)
        self._subspace_errors.append(error)
        self._reports.append(replace(report, basis=None))  # thousands of large ones would fill the memory
        for listener in self.on_round:
            listener(report)

    def _on_note(self, note: Note) -> None:
        if note.kind == "agent-gone":
            self._departures.update({name: self._failures.get(name, note.text) for name in note.agent_ids})

    def _on_failure(self, agents: Sequence[str], why: str) -> None:
        self._failures |= dict.fromkeys(agents, why)

    def _on_gone(self, gone: AnyLearner | AgentOfGroup) -> None:
        if isinstance(gone, AgentOfGroup) or (isinstance(gone, SiteLearner) and gone not in self._learners):
            self._dropped.append(LearntBy.of(gone))

    def __repr__(self) -> str:
        spec = self.specification
        of = f" of {spec.rounds}" if spec.rounds else ""
        return f"<Fleet: {spec.workload}, {spec.agents} agents, {self.rounds_done}{of} rounds done>"

    def _repr_html_(self) -> str:
        """What has been learnt so far, as notebooks draw it."""
        return self.result._repr_html_()


class _Line:
    """A progress line on standard error, overwritten in place."""

    def __init__(self, rounds: int) -> None:
        self._rounds, self._due, self._began = rounds, 0.0, time.monotonic()

    def say(self, done: int) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _REDRAW_SECONDS
            say(f"round {done} of {self._rounds}", start="\r", end="")

    def end(self, done: int) -> None:
        seconds = time.monotonic() - self._began
        say(f"round {done} of {self._rounds}, {seconds:.1f} s", start="\r")


def _is_watched(progress: bool | None) -> bool:
    """Whether to show progress: as given, else on a terminal or in a notebook."""
    return progress if progress is not None else sys.stderr.isatty() or "ipykernel" in sys.modules


@contextlib.contextmanager
def _interrupt_after_round() -> Iterator[Callable[[], bool]]:
    """Defers the first interrupt to the end of the block, which can ask whether one has come.

    Only the main thread receives interrupts.
    """
    came = False

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
