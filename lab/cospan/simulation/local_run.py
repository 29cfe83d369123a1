"""A whole run in one process: the same machine and the same learners, without a network or files.

The gradients are those of a networked run, summed in the same order, so the basis is the same, bit for bit.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from cospan.client.decisions.improver import DEFAULT_OPTIONS, Options
from cospan.client.environment.ownership import close_site, closing_on_failure
from cospan.client.environment.workload_loader import make_site
from cospan.client.files.group_file import AnyGroup
from cospan.client.group import group_of
from cospan.client.learning.agent_of_group import AgentOfGroup
from cospan.client.learning.group_blocks import GroupSites
from cospan.client.learning.improving_learner import ImprovingLearner
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.placement import Host
from cospan.client.step_source import AT_END
from cospan.client.workload import AnySite, Workload
from cospan.core.privacy.private_run import vector_of
from cospan.core.privacy.word_source import SystemWords, WordSource
from cospan.core.secure_sums.membership import Member
from cospan.core.specification import RunSpecification
from cospan.server import machine
from cospan.server.machine.events import (
    Broadcast,
    Command,
    ComputeBasis,
    Event,
    GradientArrived,
    JoinRequested,
    LeaveArrived,
    Note,
    ReportRound,
    RoundsStored,
    StopRequested,
    StoreRound,
)
from cospan.server.machine.state import CoordinatorConfig, CoordinatorState
from cospan.server.runtime.basis_arithmetic import computed_basis
from cospan.server.runtime.machine_loop import MachineLoop, log_note
from cospan.wire.errors import InvalidValueError, WorkloadBehaviourError
from cospan.wire.messages import BasisUpdate, GradientUpload, Join, MaskedVector, RoundReport, RunPhase
from cospan.wire.notes import bound_note

log = logging.getLogger(__name__)

AnyLearner = SiteLearner | AnyGroup


class LocalRun:
    """The coordinator's machine and the agents' learners, which take turns.

    Attributes:
        learners: those that take part, by name.
        message: why the run is over, or "".
        seconds: from the opening of the first round to the close of the last.
        on_round: called with each round that has closed.
        on_note: called with the machine's notes.
        on_gone: called with a learner, or a member of a group, whose workload broke its contract, before it leaves.
        on_failure: called with the names of agents that leave so, and why.
        on_warning: called with an agent's name, a kind, and a sentence of what people should know.
        noise: gives, by the name of a learner and the round, the source of its noise in a run with differential
            privacy. Tests alone set another one.
    """

    def __init__(
        self,
        specification: RunSpecification,
        workload: Workload,
        hosts: Sequence[Host],
        *,
        run_id: str,
        baseline: bool | None = None,
        first_site: AnySite | None = None,
        options: Options = DEFAULT_OPTIONS,
    ) -> None:
        """Prepares a run without agents.

        Args:
            specification: of the run.
            workload: that it is of.
            hosts: who learns.
            run_id: its name.
            baseline: whether TD alone learns beside each agent; where left out, unless it is in a group.
            first_site: the first site, where it has been made before and not stepped; this run closes it.
            options: of comparisons of improved policies.
        """
        self._first_site = first_site
        self.learners: dict[str, AnyLearner] = {}
        self.message = ""
        self.seconds = 0.0
        self.on_round: list[Callable[[RoundReport], None]] = []
        self.on_note: list[Callable[[Note], None]] = []
        self.on_gone: list[Callable[[AnyLearner | AgentOfGroup], None]] = []
        self.on_failure: list[Callable[[Sequence[str], str], None]] = []
        self.on_warning: list[Callable[[str, str, str], None]] = []
        self.noise: Callable[[str, int], WordSource] = lambda _name, _round: SystemWords()
        self._specification, self._workload, self._hosts = specification, workload, hosts
        self._baseline, self._options = baseline, options
        config = CoordinatorConfig(run_id, incarnation=1, start_seconds=float("inf"))
        state = machine.initial_state(specification, config, time.monotonic())
        self._loop = MachineLoop[CoordinatorState, Event, Command](machine, state, self._execute)
        self._open: BasisUpdate | None = None
        self._agents_open = 0
        """Of the epoch of the open round."""
        self._bound_told: set[str] = set()
        self._hosted: dict[str, tuple[str, ...]] = {}

    @property
    def state(self) -> CoordinatorState:
        """Of the machine."""
        return self._loop.state

    @property
    def is_over(self) -> bool:
        """Whether no round follows."""
        return self.state.phase is RunPhase.FINISHED

    def join_all(self) -> None:
        """Makes the sites; all agents join.

        Raises:
            CospanError: the run cannot begin.
        """
        problem = self._specification.cohort_problem(len(self._hosts))
        if problem:
            raise InvalidValueError(problem)
        for stream, host in enumerate(self._hosts):
            learner = self._group(host) if host.is_group else self._single(host)
            self.learners[host.name] = learner
            self._hosted[host.name] = agents = tuple(sorted(host.agents))
            if not isinstance(learner, SiteLearner):
                learner.on_failure.append(self._on_member_failure)
            self._loop.handle(JoinRequested(self._join_of(learner, agents), stream=stream, token=host.name))

    def close(self) -> None:
        """Closes all environments; what was learnt stays."""
        for learner in self.learners.values():
            learner.close()
        if self._first_site is not None:
            close_site(self._first_site)
            self._first_site = None

    def run_round(self, interruption: Callable[[], str] = lambda: "") -> None:
        """Every learner takes its turn.

        Args:
            interruption: asked before each turn why the run is to end now; "" where it is not.

        Raises:
            WorkloadBehaviourError: a workload broke its contract in its first round; later on, its agents leave.
        """
        assert self._open is not None
        opened, epoch = self._open, self.state.open_round.epoch
        self._agents_open = 0 if epoch is None else len(epoch.awaited)
        for learner in list(self.learners.values()):
            if why := interruption():
                self._loop.handle(StopRequested(why))
                return
            self._take_turn(learner, opened)

    def _single(self, host: Host) -> SiteLearner:
        spec, (index,) = self._specification, host.indices
        site, with_baseline = self._site(index), self._baseline is not False
        if not spec.improve:
            return SiteLearner(site, spec, name=host.name, index=index, with_baseline=with_baseline)
        with closing_on_failure(site):
            return ImprovingLearner(
                site, spec, name=host.name, index=index, with_baseline=with_baseline, options=self._options
            )

    def _site(self, index: int) -> AnySite:
        """A site of one agent; the first one may have been made before."""
        made, self._first_site = (self._first_site, None) if index == 0 else (None, self._first_site)
        return make_site(self._workload, index, self._specification.seed) if made is None else made

    def _group(self, host: Host) -> AnyGroup:
        spec = self._specification
        if self._first_site is not None:
            close_site(self._first_site)  # before the group makes it among its own
            self._first_site = None
        sites = GroupSites.of(
            self._workload,
            host.indices,
            spec.feature_dim,
            spec.seed,
            one_by_one=bool(spec.improve),
            sampled_every=spec.method.sampled_every(spec.agents),
        )
        return group_of(sites, spec, names=host.agents, with_baseline=self._baseline is True, options=self._options)

    def _take_turn(self, learner: AnyLearner, opened: BasisUpdate) -> None:
        try:
            upload = learner.learn(opened.stamp.round, opened.basis, opened.head_covariance)
        except WorkloadBehaviourError as failure:
            if learner.rounds == 0:
                raise
            self._lose(learner, str(failure))
            return
        warnings, learner.warnings[:] = list(learner.warnings), []
        for warning in warnings:
            log.log(logging.INFO if warning.kind == AT_END else logging.WARNING, "%s", warning.text)
            for warn in self.on_warning:
                warn(warning.agent, warning.kind, warning.text)
        if not isinstance(learner, SiteLearner) and len(learner.names) < len(self._hosted[learner.name]):
            self._join_smaller(learner)
        if upload.bounded and learner.name not in self._bound_told:
            self._bound_told.add(learner.name)
            text = bound_note(upload.bounded, self._specification.method)
            self._on_note(Note("head-bounded", upload.round, upload.bounded, text))
        if self._specification.secure_sums:
            upload = self._in_fixed_point(upload, opened, learner.name)
        self._loop.handle(GradientArrived(learner.name, upload))

    def _in_fixed_point(self, upload: GradientUpload, opened: BasisUpdate, name: str) -> GradientUpload:
        """The upload of a run with secure sums, without masks: they cancel in the sum."""
        contribution, number = upload.plain, upload.round
        noise = self.noise(name, number)
        words = vector_of(contribution, self._specification, number, self._agents_open, noise).words
        return GradientUpload(number, MaskedVector(words, opened.epoch_id, contribution.weight))

    def _join_of(self, learner: AnyLearner, agents: tuple[str, ...]) -> Join:
        """With secure sums the key is none: within a process nothing is masked, and the sums are the same."""
        name, spec = learner.name, self._specification
        join = Join(name, agents, learner.feature_dim, learner.feature_fingerprint, spec.workload)
        if not spec.secure_sums:
            return join
        return replace(join, sum_members=(Member(hashlib.sha256(name.encode()).digest(), ()),))

    def _lose(self, learner: AnyLearner, why: str) -> None:
        """A learner leaves the run."""
        del self.learners[learner.name]
        for listener in self.on_gone:
            listener(learner)
        self._tell_failure(self._hosted[learner.name], why)
        learner.close()
        self._loop.handle(LeaveArrived(learner.name, why))

    def _join_smaller(self, group: AnyGroup) -> None:
        """A group takes part without the members that it has dropped, from this round on."""
        agents = tuple(sorted(group.names))
        self._hosted[group.name] = agents
        self._loop.handle(JoinRequested(self._join_of(group, agents), stream=-1, token=group.name))

    def _on_member_failure(self, agent: AgentOfGroup | SiteLearner, why: str) -> None:
        for listener in self.on_gone:
            listener(agent)
        self._tell_failure((agent.name,), why)

    def _tell_failure(self, agents: Sequence[str], why: str) -> None:
        log.warning("round %d: %s failed: %s", self.state.round, ", ".join(agents[:5]), why)
        for listener in self.on_failure:
            listener(agents, why)

    # The machine ------------------------------------------------------------------------------------------------

    def _execute(self, command: Command) -> Event | None:
        match command:
            case Broadcast(message=BasisUpdate() as opened):
                self._open = opened
            case ComputeBasis():
                return computed_basis(command, self._specification)
            case StoreRound(record=record):
                return RoundsStored((record,))  # `on_round` is for those who keep it
            case ReportRound(report=report):
                self.seconds += report.seconds
                for listener in self.on_round:
                    listener(report)
            case Note():
                self._on_note(command)
        return None

    def _on_note(self, note: Note) -> None:
        log_note(note, logging.INFO)  # the listeners show what is worth a warning
        if note.kind == "run-finished":
            self.message = note.text
        for listener in self.on_note:
            listener(note)
