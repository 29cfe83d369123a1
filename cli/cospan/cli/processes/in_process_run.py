"""`cospan run --in-process`: a run without a network, its signals, what is shown of it, and its files."""

import signal
import time
from collections.abc import Sequence
from types import FrameType

from cospan.cli.output.progress import View
from cospan.cli.output.run_problems import Warnings
from cospan.cli.processes.this_process import stop_signals
from cospan.cli.run_folder.layout import RunFolder, point_to_newest_of
from cospan.cli.run_folder.progress_log import AgentProgress, RunMonitor
from cospan.cli.run_folder.run_result import RunOutcome, outcome_of_state
from cospan.cli.settings.run_specification import RunPlan
from cospan.client.files.group_file import GROUP
from cospan.client.files.result_file import save_result
from cospan.client.group import has_own_files, save_agents
from cospan.client.learning.agent_of_group import AgentOfGroup
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.placement import Host
from cospan.server.machine.events import Note
from cospan.simulation.local_run import AnyLearner, LocalRun
from cospan.wire.files.npz import save_npz
from cospan.wire.text import listed

_REDRAW_SECONDS = 0.25


class InProcessRun:
    """A `LocalRun` that writes a run folder."""

    def __init__(
        self,
        plan: RunPlan,
        hosts: Sequence[Host],
        folder: RunFolder,
        monitor: RunMonitor,
        view: View,
        *,
        run_id: str,
    ) -> None:
        self.interrupted = ""
        self.losses: dict[str, str] = {}
        self.warnings = Warnings(view)
        self._folder, self._monitor, self._view = folder, monitor, view
        assert plan.workload is not None
        self._run = LocalRun(
            plan.specification,
            plan.workload,
            hosts,
            run_id=run_id,
            baseline=plan.settings.baseline,
            first_site=plan.site,
        )
        self._run.on_round.append(monitor.add_round)
        self._run.on_note.append(self._on_note)
        self._run.on_gone.append(self._save)
        self._run.on_failure.append(self._on_failure)
        self._run.on_warning.append(self.warnings.add)
        self._redraw_due = 0.0

    def run(self) -> RunOutcome:
        """From the first join to the last round; every agent's file is written.

        Raises:
            CospanError: the run cannot begin.
        """
        run = self._run
        before = [(number, signal.signal(number, self._on_signal)) for number in stop_signals()]
        try:
            run.join_all()
            point_to_newest_of(self._folder)
            self._monitor.joined = run.state.specification.agents
            while not run.is_over:
                run.run_round(self._interruption)
                self._redraw()
            for learner in run.learners.values():
                self._save(learner)
        finally:
            run.close()
            for number, handler in before:
                signal.signal(number, handler)
        return outcome_of_state(run.state, message=run.message, seconds=run.seconds)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """The first signal ends the run after the agent whose turn it is, the second at once."""
        if not self.interrupted:
            self.interrupted = signal.Signals(number).name
        elif number != signal.SIGHUP:  # a terminal that closes may send several
            raise KeyboardInterrupt

    def _interruption(self) -> str:
        return f"the run was stopped by {self.interrupted}" if self.interrupted else ""

    def _redraw(self) -> None:
        now = time.monotonic()
        if now >= self._redraw_due:
            self._redraw_due = now + _REDRAW_SECONDS
            for learner in self._run.learners.values():
                self._monitor.add_agent(AgentProgress.of_learner(learner))
            self._view.update(self._monitor.progress())

    def _on_failure(self, agents: Sequence[str], why: str) -> None:
        self.losses |= dict.fromkeys(agents, why)
        self._view.tell(f"{listed(agents)} failed: {why}")

    def _save(self, learner: AnyLearner | AgentOfGroup) -> None:
        if not isinstance(learner, AgentOfGroup):
            self._monitor.add_agent(AgentProgress.of_learner(learner))
        path, run_id = self._folder.agent(learner.name), self._run.state.config.run_id
        if isinstance(learner, SiteLearner | AgentOfGroup):
            save_result(path, learner, run_id=run_id)
            return
        save_npz(path, **GROUP.contents(learner, run_id))
        if has_own_files(learner):
            save_agents(learner, self._folder.agents, run_id=run_id)

    def _on_note(self, note: Note) -> None:
        if note.kind == "agent-gone":
            self._view.note(f"round {note.round}: {listed(note.agent_ids)} is gone: {note.text}")
        elif note.kind == "head-bounded":
            self._view.note(f"round {note.round}: {note.text}")
