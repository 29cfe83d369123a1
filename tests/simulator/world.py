"""A whole run from its plan: processes, network and disk, what looks after them, and what breaks them."""

import random
import traceback
from collections import Counter
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from runs import Disk, specification

from cospan.client.session.machine import Phase
from cospan.core.specification import RunSpecification
from cospan.server.machine import events
from cospan.wire.messages import FinishCause
from simulator import faults, toy
from simulator.duties.time_limits import ROUND_TIMEOUT
from simulator.parties.agent import AgentProcess
from simulator.parties.coordinator import CoordinatorProcess
from simulator.parties.disk import SimulatedDisk
from simulator.parties.network import Network
from simulator.parties.processes import Timeline
from simulator.parties.relay import RelayProcess
from simulator.parties.session_process import Surroundings
from simulator.plan import FAULT_SECONDS, Kind, Plan, Settings
from simulator.witness import Witness

PROGRESS_WITHIN_SECONDS = 150.0
"""After the last fault: until every agent is counted again and `PROGRESS_ROUNDS` rounds are durable, or the run has
ended. It is made of the keepalive, the session timeout, the wait for contributors, two round timeouts, and the time
of the rounds."""
PROGRESS_ROUNDS = 3
RECOVERY_WITHIN_SECONDS = 25.0
"""The same once all is well, and only connections or the coordinator's process are lost: no session times out."""
_MOST_RENAMED, _MOST_ADDED = 12, 4
_MOST_EVENTS = 200_000
_RESUMABLE = (FinishCause.NO_AGENTS, FinishCause.NOT_STARTED)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a plan.

    Attributes:
        violation: what does not hold, and where; empty if all holds.
        injected: how often each kind of fault was injected; one that found nothing to break is not counted.
        events: that the timeline had.
        rounds: that were stored.
        seconds: of virtual time.
        sums: secure sums that were formed.
        voids: rounds with secure sums that were void.
    """

    violation: str
    injected: Counter[Kind] = field(default_factory=Counter)
    events: int = 0
    rounds: int = 0
    seconds: float = 0.0
    sums: int = 0
    voids: int = 0


class World:
    """Everything that a run consists of."""

    agent_class = AgentProcess

    def __init__(self, plan: Plan) -> None:
        self.plan, settings = plan, plan.settings
        self._rng = random.Random(f"world {plan.seed}")
        self.timeline = Timeline()
        self.network = Network(self.timeline, self.fork("network"), settings.network_seconds)
        self.witness = Witness()
        self.disk = self._new_disk()
        self.injected: Counter[Kind] = Counter()
        self.coordinator: CoordinatorProcess | None = None
        self.relay: RelayProcess | None = None
        self.agents: dict[int, AgentProcess] = {}
        self.finished = False
        self.is_healed = False
        """Whether nothing is broken any more."""
        self.on_replay: Callable[[], None] | None = None
        self._generations = 0
        self._hosted = [_names(index, hosted) for index, hosted in enumerate(settings.processes)]
        """The agents of each process."""
        self._renamed: Counter[str] = Counter()
        """How often an agent was replaced by one of another name, by its first name."""
        self._processes_renamed = 0
        self._added_to_relay: set[int] = set()
        self._convicted: set[int] = set()
        """Generations of processes that were refused after a lie."""
        self._all_agents: frozenset[str] | None = None
        self._start_coordinator()
        if settings.relayed:
            self.timeline.after(self._rng.uniform(0.0, 0.5), self._start_relay)
        for index in range(len(settings.processes)):
            late = settings.late_seconds if index == len(settings.processes) - 1 else 0.0
            begins = self._rng.uniform(0.0, 0.5) + late
            self.timeline.after(begins, lambda index=index: self._start_agent(index))
        for fault in plan.faults:
            self.timeline.at(fault.at, lambda fault=fault: faults.inject(self, fault))

    def fork(self, name: str) -> random.Random:
        """A random generator that does not depend on what others draw."""
        return random.Random(f"{name} {self.plan.seed}")

    @property
    def stored_contributors(self) -> frozenset[str]:
        """The agents of the newest stored round."""
        return self.witness.last_contributors

    def _replay_begins(self) -> None:
        happens, self.on_replay = self.on_replay, None
        if happens is not None:
            self.timeline.after(0.0, happens)

    @property
    def all_agents(self) -> frozenset[str]:
        """The names of all agents of the run."""
        if self._all_agents is None:
            self._all_agents = frozenset(name for names in self._hosted for name in names)
        return self._all_agents

    def index_of(self, process: AgentProcess) -> int:
        """The place of a process, which its followers have as well."""
        return next(index for index, other in self.agents.items() if other is process)

    def is_relayed(self, index: int) -> bool:
        """Whether the process at a place joins the relay."""
        return index < self.plan.settings.relayed or index in self._added_to_relay

    def add_agent(self, *, relayed: bool = False) -> bool:
        """One more process, which hosts one agent; False if there were too many already."""
        if len(self._hosted) >= len(self.plan.settings.processes) + _MOST_ADDED:
            return False
        self._hosted.append(_names(len(self._hosted), 1))
        self._all_agents = None
        if relayed:
            self._added_to_relay.add(len(self._hosted) - 1)
        self._start_agent(len(self._hosted) - 1)
        return True

    def grow(self, process: AgentProcess) -> bool:
        """The process that follows this one hosts a new agent more; False if there were too many already."""
        index = self.index_of(process)
        if len(self.all_agents) >= 2 * sum(self.plan.settings.processes):
            return False
        self._hosted[index] = tuple(sorted((*self._hosted[index], f"agent-{index:02}-{len(self.all_agents)}")))
        self._all_agents = None
        return True

    def rename(self, process: AgentProcess) -> bool:
        """The process that follows this one has agents of other names; False if there were too many already."""
        if self._processes_renamed >= _MOST_RENAMED:
            return False
        index = self.index_of(process)
        first_names = ["-".join(name.split("-")[:3]) for name in self._hosted[index]]
        self._processes_renamed += 1
        self._renamed.update(first_names)
        self._hosted[index] = tuple(f"{name}-{self._renamed[name]}" for name in first_names)
        self._all_agents = None
        return True

    def move(self, process: AgentProcess, other: AgentProcess) -> None:
        """The process that follows `other` hosts one agent more: the last one of `process`."""
        index, to = self.index_of(process), self.index_of(other)
        *stay, moved = self._hosted[index]
        self._hosted[index], self._hosted[to] = tuple(stay), tuple(sorted((*self._hosted[to], moved)))

    # Starting, and starting again ----------------------------------------------------------------------------

    def _new_disk(self) -> SimulatedDisk:
        disk = self._disk_with(Disk(specification_of(self.plan.settings), f"run of {self.timeline.now:g}"))
        self.witness.begin(disk.store)
        return disk

    def _disk_with(self, store: Disk) -> SimulatedDisk:
        disk = SimulatedDisk(store, self.fork(f"disk {self.timeline.now:g}"), self.plan.settings.disk_seconds)
        disk.on_commit = self.witness.committed
        self.witness.on_replay = self._replay_begins
        return disk

    def copied_store(self) -> tuple[Disk, int]:
        """A copy of the store as it is now, and its incarnation."""
        store = self.disk.store
        copied = {name: copy(value) for name, value in vars(store).items()}
        twin = Disk(store.specification, store.run_id)
        vars(twin).update(copied)
        return twin, self.disk.incarnation

    def restore(self, store: Disk, incarnation: int) -> None:
        """The coordinator is killed, and the next one resumes a copy of the store; not one of an earlier run."""
        if self.finished or store.run_id != self.disk.store.run_id:
            return
        coordinator, self.coordinator = self.coordinator, None
        if coordinator is not None:
            coordinator.die()
        self.disk = self._disk_with(store)
        self.disk.incarnation = incarnation
        self.witness.begin_again(store)

    def lose_store(self) -> None:
        """The coordinator is killed, and the next one begins a new run."""
        coordinator, self.coordinator = self.coordinator, None
        if coordinator is not None:
            coordinator.die()
        self.disk = self._new_disk()

    def _start_coordinator(self) -> None:
        if self.coordinator is None and not self.finished:
            rng = self.fork(f"coordinator {self.timeline.now}")
            self.coordinator = CoordinatorProcess(
                self.timeline, rng, self.disk, self.witness, self.plan.settings, on_end=self._coordinator_ended
            )

    def _coordinator_ended(self, process: CoordinatorProcess) -> None:
        if process.disk is not self.disk:
            return self.timeline.after(0.2, self._start_coordinator)
        end = process.state.end
        over = isinstance(end, events.EndRun) and end.cause not in _RESUMABLE
        rounds = self.plan.settings.rounds
        self.finished = bool(rounds) and len(self.disk.store.rounds) == rounds
        assert self.finished or not over, f"the run has ended: {end}"
        self.coordinator = None
        return self.timeline.after(self._rng.uniform(0.1, 1.0), self._start_coordinator)

    def _surroundings(self, host: Callable[[], Any], on_end: Callable[[Any], None]) -> Surroundings:
        return Surroundings(self.timeline, self.network, self.witness, self.plan.settings, host, on_end)

    def _start_relay(self) -> None:
        if not self.finished:
            self._generations += 1
            around = self._surroundings(lambda: self.coordinator, self._relay_ended)
            self.relay = RelayProcess(around, self.fork(f"relay {self._generations}"), self._generations)

    def _relay_ended(self, process: RelayProcess) -> None:
        self.relay = None
        self.timeline.after(self._rng.uniform(0.1, 1.0), self._start_relay)

    def _listening_relay(self) -> RelayProcess | None:
        return self.relay if self.relay is not None and self.relay.loop is not None else None

    def _start_agent(self, index: int) -> None:
        self._generations += 1
        around = self._surroundings(
            self._listening_relay if self.is_relayed(index) else lambda: self.coordinator,
            lambda process: self._agent_ended(index, process),
        )
        rng = self.fork(f"agent {index} {self._generations}")
        self.agents[index] = self.agent_class(around, rng, self._hosted[index], self._generations)

    def _agent_ended(self, index: int, process: AgentProcess) -> None:
        if self.agents.get(index) is process:
            del self.agents[index]
        if process.is_convicted:
            self._convicted.add(process.generation)
        self.timeline.after(self._rng.uniform(0.1, 1.0), lambda: self._start_agent(index))

    # The run -------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Until the run has ended, or has made progress after the last fault; raises AssertionError otherwise."""
        over = max((fault.at for fault in self.plan.faults), default=0.0)
        self._run_until(min(over, FAULT_SECONDS))
        faults.heal(self)
        self._make_progress(PROGRESS_WITHIN_SECONDS)
        for disturb in (self._reset_all, self._kill_coordinator):
            # All is well now: a process that waits for the end of a timeout has lost its way.
            before = {index: process.generation for index, process in self.agents.items()}
            voids = self.witness.secure_sums.voids
            disturb()
            self._make_progress(RECOVERY_WITHIN_SECONDS)
            after = {index: process.generation for index, process in self.agents.items()}
            # A gradient that was held back may come only now, and show that its process has lied before.
            ended = {each for index, each in before.items() if after.get(index) != each} - self._convicted
            assert self.finished or not ended, "an agent has ended, and only its connection was lost"
            assert self.witness.secure_sums.voids == voids, "a round is void, and no process was lost"

    def _make_progress(self, within: float) -> None:
        begun, commits = self.timeline.now, self.witness.commits
        while not self.finished:
            self._next()
            if self.witness.commits >= commits + PROGRESS_ROUNDS and self._all_counted():
                break
            late = self.timeline.now - begun
            assert late <= within, f"no progress within {late:.0f} s: {self._standing()}"

    def _reset_all(self) -> None:
        for process in (*self.agents.values(), *([self.relay] if self.relay else [])):
            if process.connection is not None:
                process.connection.reset()

    def _kill_coordinator(self) -> None:
        if self.coordinator is not None:
            self.coordinator.die()

    def _run_until(self, time: float) -> None:
        while self.timeline.now <= time and not self.finished:
            self._next()

    def _next(self) -> None:
        self.timeline.happen()
        assert self.timeline.events < _MOST_EVENTS, "events without an end"

    def _all_counted(self) -> bool:
        """Whether every agent is in an open session of this run, and without a quorum takes part again.

        Rounds that were closed before a process was lost are stored after it as well.
        """
        counted = bool(self.plan.settings.quorum) or self.witness.last_contributors == self.all_agents
        here = len(self.agents) == len(self._hosted) and all(map(self._takes_part, self.agents.values()))
        # What stands still has faults before it: an agent that was asked to leave meanwhile does so afterwards.
        processes = (*self.agents.values(), self.coordinator, self.relay)
        return counted and here and not any(each is not None and each.stalled for each in processes)

    def _takes_part(self, process: AgentProcess) -> bool:
        state, connection = process.state, process.connection
        in_run = state.stamp is not None and state.stamp.run_id == self.disk.store.run_id
        return in_run and state.phase is Phase.ACTIVE and connection is not None and connection.works

    def _standing(self) -> str:
        coordinator = self.coordinator
        phase = coordinator.state.phase if coordinator else "down"
        missing = sorted(self.all_agents - self.witness.last_contributors)
        states = {process.agents[0]: process.state.phase.value for process in self.agents.values()}
        return f"coordinator {phase}, {len(self.disk.store.rounds)} rounds, not counted {missing}, agents {states}"


def specification_of(settings: Settings) -> RunSpecification:
    """The specification of a simulated run."""
    spec = specification(
        agents=sum(settings.processes),
        rounds=settings.rounds,
        feature_dim=toy.D,
        rank=toy.R,
        round_timeout_seconds=ROUND_TIMEOUT,
        participation=settings.participation,
        quorum=settings.quorum,
        deadline_seconds=settings.deadline_seconds,
        max_staleness=settings.max_staleness,
        secure_sums=bool(settings.min_cohort),
        min_cohort=settings.min_cohort,
    )
    assert spec.problems() == []
    return spec


def _names(index: int, hosted: int) -> tuple[str, ...]:
    """The first agents of a process."""
    return tuple(f"agent-{index:02}-{member}" for member in range(hosted))


def play(plan: Plan) -> Result:
    """Plays a plan; the same plan gives the same result."""
    world, violation = None, ""
    try:
        world = World(plan)
        world.play()
    except Exception as failure:  # whatever is raised is a violation
        where = traceback.extract_tb(failure.__traceback__)[-1]
        violation = f"{type(failure).__name__}: {failure} ({where.name})"
    if world is None:
        return Result(violation)
    rounds = len(world.disk.store.rounds)
    book = world.witness.secure_sums
    return Result(
        violation, world.injected, world.timeline.events, rounds, world.timeline.now, book.sums, book.voids
    )
