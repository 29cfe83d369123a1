"""A whole run in one process: the same machine and the same learners, driven by a loop. No network, no clock.

The gradients are those that would have gone over the wire, summed in the same order: the basis is the same, bit for
bit.
"""

import logging
import signal
import time
from collections import deque
from collections.abc import Sequence
from types import FrameType

import numpy as np

from cospan.cli.hosts import Host
from cospan.cli.outcome import RunOutcome, outcome_of_state
from cospan.cli.progress import View
from cospan.cli.recorder import AgentProgress, RunMonitor
from cospan.cli.run_folder import RunFolder
from cospan.cli.specifying import RunPlan
from cospan.client.agent_group import save_agents
from cospan.client.group_file import GROUP
from cospan.client.group_learner import GroupLearner, GroupSites
from cospan.client.loading import make_site
from cospan.client.result_file import save_result
from cospan.client.site_learner import SiteLearner
from cospan.core.exclusion import sound_move
from cospan.server import machine
from cospan.server.events import (
    BasisComputed,
    BasisFailed,
    Broadcast,
    Command,
    ComputeBasis,
    Event,
    GradientArrived,
    JoinRequested,
    LeaveArrived,
    Note,
    ReportRound,
    RoundStored,
    StopRequested,
    StoreRound,
)
from cospan.wire.errors import WorkloadBehaviourError
from cospan.wire.messages import BasisUpdate, Join, RunPhase
from cospan.wire.npz import save_npz

log = logging.getLogger(__name__)

_REDRAW_SECONDS = 0.25
_NAMED = 5


class InProcessRun:
    """The coordinator's machine and the agents' learners, taking turns."""

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
        self._plan, self._hosts, self._folder, self._monitor, self._view = plan, hosts, folder, monitor, view
        self._state = machine.initial_state(
            plan.specification, run_id=run_id, incarnation=1, start_seconds=float("inf"), now=time.monotonic()
        )
        self._learners: dict[str, SiteLearner | GroupLearner] = {}
        self._open: BasisUpdate | None = None
        self._end = ""
        self._seconds = 0.0
        self._redraw_due = 0.0

    def run(self) -> RunOutcome:
        """From the first join to the last round; every agent's file is written.

        Raises:
            CospanError: the run cannot begin.
        """
        before = [(number, signal.signal(number, self._on_signal)) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            self._join_all()
            while self._state.phase is not RunPhase.FINISHED:
                self._play_round()
        finally:
            for number, handler in before:
                signal.signal(number, handler)
        for learner in self._learners.values():
            self._save(learner)
        return outcome_of_state(self._state, message=self._end, seconds=self._seconds)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """The first signal ends the run after the agent whose turn it is, the second at once."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = signal.Signals(number).name

    def _join_all(self) -> None:
        spec = self._plan.specification
        for stream, host in enumerate(self._hosts):
            learner = self._group(host) if host.is_group else self._single(host)
            self._learners[host.name] = learner
            agents = tuple(sorted(host.agents))
            join = Join(host.name, agents, spec.feature_dim, learner.feature_fingerprint, spec.workload)
            self._handle(JoinRequested(join, stream=stream, token=host.name))
            self._monitor.joined += len(agents)

    def _single(self, host: Host) -> SiteLearner:
        spec, (index,) = self._plan.specification, host.indices
        assert self._plan.workload is not None
        site = make_site(self._plan.workload, index, spec.seed)
        baseline = self._plan.settings.baseline is not False
        return SiteLearner(site, spec, name=host.name, index=index, with_baseline=baseline)

    def _group(self, host: Host) -> GroupLearner:
        spec = self._plan.specification
        assert self._plan.workload is not None
        sites = GroupSites.of(self._plan.workload, host.indices, spec.feature_dim, spec.seed)
        return GroupLearner(sites, spec, names=host.agents, with_baseline=self._plan.settings.baseline is True)

    def _play_round(self) -> None:
        assert self._open is not None
        opened = self._open
        for learner in list(self._learners.values()):
            if self.interrupted:
                self._handle(StopRequested(f"the run was stopped by {self.interrupted}"))
                return
            self._take_turn(learner, opened)
        self._redraw()

    def _take_turn(self, learner: SiteLearner | GroupLearner, opened: BasisUpdate) -> None:
        try:
            upload = learner.learn(opened.stamp.round, opened.basis)
        except WorkloadBehaviourError as failure:
            if learner.rounds == 0:
                raise
            self._save(self._learners.pop(learner.name))
            self._handle(LeaveArrived(learner.name, str(failure)))
        else:
            self._handle(GradientArrived(learner.name, upload))

    def _redraw(self) -> None:
        now = time.monotonic()
        if now >= self._redraw_due:
            self._redraw_due = now + _REDRAW_SECONDS
            for learner in self._learners.values():
                self._monitor.add_agent(AgentProgress.of_learner(learner))
            self._view.update(self._monitor.progress())

    def _save(self, learner: SiteLearner | GroupLearner) -> None:
        self._monitor.add_agent(AgentProgress.of_learner(learner))
        path, run_id = self._folder.agent(learner.name), self._state.run_id
        if isinstance(learner, SiteLearner):
            save_result(path, learner, run_id=run_id)
            return
        save_npz(path, **GROUP.contents(learner, run_id))
        save_agents(learner, self._folder.agents, run_id=run_id)

    # The machine ------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        """Lets an event happen, and everything that follows from it."""
        pending: deque[Event] = deque([event])
        while pending:
            self._state, commands = machine.step(self._state, pending.popleft(), time.monotonic())
            pending.extend(event for event in map(self._execute, commands) if event is not None)

    def _execute(self, command: Command) -> Event | None:
        match command:
            case Broadcast(message=BasisUpdate() as opened):
                self._open = opened
            case ComputeBasis():
                return self._computed(command)
            case StoreRound(record=record):
                return RoundStored(record.report.closed_round, record.report)  # what is kept here are files
            case ReportRound(report=report):
                self._seconds += report.seconds
                self._monitor.add_round(report)
            case Note():
                self._on_note(command)
        return None

    def _computed(self, command: ComputeBasis) -> Event:
        method = self._plan.specification.method
        try:
            sound = sound_move(command.basis, command.contributions, method, command.round, command.row_squares)
        except np.linalg.LinAlgError as failure:
            return BasisFailed(command.round, f"round {command.round} gave no finite basis: {failure}")
        return BasisComputed(command.round, sound.move)

    def _on_note(self, note: Note) -> None:
        log.info("round %d: %s %s %s", note.round, note.kind, ", ".join(note.agent_ids[:5]), note.text)
        if note.kind == "run-finished":
            self._end = note.text
        elif note.kind == "agent-gone":
            named, more = note.agent_ids[:_NAMED], len(note.agent_ids) - _NAMED
            names = ", ".join(named) + (f" and {more} more" if more > 0 else "")
            self._view.note(f"round {note.round}: {names} is gone: {note.text}")
