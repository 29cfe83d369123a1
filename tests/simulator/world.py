"""A whole run from its plan: processes, network and disk, what looks after them, and what breaks them."""

import random
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runs import Disk, specification

from cospan.client.session.machine import Phase
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
from simulator.plan import FAULT_SECONDS, Kind, Plan
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
    """

    violation: str
    injected: Counter[Kind] = field(default_factory=Counter)
    events: int = 0
    rounds: int = 0
    seconds: float = 0.0


class World:
    """Everything that a run consists of."""

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
        self.on_replay: Callable[[], None] | None = None
        self._generations = 0
        self._hosted = list(settings.processes)
        self._renamed: Counter[int] = Counter()
        self._all_agents: tuple[tuple[int, int], frozenset[str]] = (0, 0), frozenset()
        """All names, and the numbers of processes and of renamed ones with which they were listed."""
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
        changes = len(self._hosted), sum(self._renamed.values())
        if self._all_agents[0] != changes:
            names = frozenset(name for index in range(len(self._hosted)) for name in self._names(index))
            self._all_agents = changes, names
        return self._all_agents[1]

    def _names(self, index: int) -> tuple[str, ...]:
        hosted, renamed = self._hosted[index], self._renamed[index]
        return tuple(f"agent-{index:02}-{member}" + f"-{renamed}" * bool(renamed) for member in range(hosted))

    def add_agent(self) -> bool:
        """One more process, which hosts one agent; False if there were too many already."""
        if len(self._hosted) >= len(self.plan.settings.processes) + _MOST_ADDED:
            return False
        self._hosted.append(1)
        self._start_agent(len(self._hosted) - 1)
        return True

    def rename(self, process: AgentProcess) -> bool:
        """The process that follows this one has agents of other names; False if there were too many already."""
        index = next(index for index, other in self.agents.items() if other is process)
        if sum(self._renamed.values()) >= _MOST_RENAMED:
            return False
        self._renamed[index] += 1
        return True

    # Starting, and starting again ----------------------------------------------------------------------------

    def _new_disk(self) -> SimulatedDisk:
        settings = self.plan.settings
        quorum = {name: getattr(settings, name) for name in ("participation", "quorum", "deadline_seconds")}
        spec = specification(
            agents=sum(settings.processes),
            rounds=settings.rounds,
            feature_dim=toy.D,
            rank=toy.R,
            round_timeout_seconds=ROUND_TIMEOUT,
            max_staleness=settings.max_staleness,
            **quorum,
        )
        assert spec.problems() == []
        store = Disk(spec, f"run of {self.timeline.now:g}")
        disk = SimulatedDisk(store, self.fork(f"disk {self.timeline.now:g}"), settings.disk_seconds)
        self.witness.begin(store)
        disk.on_commit = self.witness.committed
        self.witness.on_replay = self._replay_begins
        return disk

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
        relayed = index < self.plan.settings.relayed
        around = self._surroundings(
            self._listening_relay if relayed else lambda: self.coordinator,
            lambda process: self._agent_ended(index, process),
        )
        rng = self.fork(f"agent {index} {self._generations}")
        self.agents[index] = AgentProcess(around, rng, self._names(index), self._generations)

    def _agent_ended(self, index: int, process: AgentProcess) -> None:
        if self.agents.get(index) is process:
            del self.agents[index]
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
            disturb()
            self._make_progress(RECOVERY_WITHIN_SECONDS)
            after = {index: process.generation for index, process in self.agents.items()}
            stayed = all(after.get(index) == generation for index, generation in before.items())
            assert self.finished or stayed, "an agent has ended, and only its connection was lost"

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
        """Whether every agent takes part again; with a quorum, whether each is in an open session of this run."""
        if not self.plan.settings.quorum:
            return self.witness.last_contributors == self.all_agents
        return len(self.agents) == len(self._hosted) and all(map(self._takes_part, self.agents.values()))

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
    return Result(violation, world.injected, world.timeline.events, rounds, world.timeline.now)
