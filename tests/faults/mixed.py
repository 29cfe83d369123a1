"""Runs with a quorum, or with secure sums, to which everything happens that can."""

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from behaviour.bridge import Bridge
from faults.evidence import longest_stall, stored_rounds
from faults.fleet import Fleet, silent_wait
from faults.plan import SESSION_TIMEOUT_SECONDS, Fault, Kind, QuorumRun, plan_quorum_run
from faults.processes import Life

from cospan.cli.commands.status import status_lines
from cospan.server.storage.reader import read_state

ROUND_SECONDS = 8.0
_RETURN_SECONDS = 15.0
"""How long the open round waits, after a restart, for those who took part in the one before."""
_START_SECONDS = 5.0
_FIRST_SECONDS = 60.0
"""How long the first round waits for the fleet to be complete."""
BOUND_SECONDS = _RETURN_SECONDS + ROUND_SECONDS + SESSION_TIMEOUT_SECONDS + _START_SECONDS
"""No wait for a round is longer: for all to come back, for their gradients, for a process to start."""
_END_SECONDS = 180.0
_LOOK_SECONDS = 0.5
_PACE = 0.008
_REST_SECONDS = 5.0
"""How long a coordinator is spared after its own fault: agents come back and rounds close between."""


@dataclass(frozen=True, slots=True)
class MixedReport:
    """What came of one run. `problems` is empty when all is well."""

    run: QuorumRun
    done: Counter[Kind]
    seconds: float
    rounds: int
    stale: int
    void: int
    incarnations: int
    stall: float
    overturned: int
    looked: int
    said: int
    problems: list[str]

    def line(self) -> str:
        """For people."""
        run = self.run
        how = (
            f"quorum {run.quorum}, deadline {run.deadline_seconds:g} s, staleness {run.max_staleness}"
            if not run.secure
            else "secure sums"
        )
        counted = f"{self.void} rounds void" if run.secure else f"{self.stale} stale gradients counted"
        return (
            f"  {run.agents} agents, {how}: {self.done.total()} faults, {self.rounds} rounds in "
            f"{self.seconds:.0f} s, {counted}, {self.incarnations} incarnations, longest stall "
            f"{self.stall:.1f} s; {self.looked} looks at the status, {self.said} while an agent was waited for; "
            f"{self.overturned} bases told ahead of the disk came to be others"
        )


class Mischief:
    """Does to a fleet what its plan says."""

    def __init__(self, fleet: Fleet, run: QuorumRun) -> None:
        self.done: Counter[Kind] = Counter()
        self._fleet, self._run = fleet, run
        self._network = [asyncio.Lock() for _ in range(run.agents)]
        self._process = [asyncio.Lock() for _ in range(run.agents)]
        self._coordinator = asyncio.Lock()
        self._going_on: set[asyncio.Task[None]] = set()

    async def wreak(self) -> None:
        """All faults, each when it is due; afterwards everything runs that can."""
        for fault in self._run.faults:
            reached = asyncio.ensure_future(self._fleet.reached(fault.round))
            await asyncio.wait(
                {reached, self._fleet.finished}, timeout=fault.latest_seconds, return_when="FIRST_COMPLETED"
            )
            reached.cancel()
            await asyncio.sleep(fault.jitter)
            self._going_on.add(asyncio.create_task(self._do(fault)))
        for task in self._going_on:
            await task

    async def _do(self, fault: Fault) -> None:
        """One fault, when what it hits has recovered from the one before."""
        if fault.kind.of_coordinator:
            async with self._coordinator:
                hit = await self._to_coordinator(fault)
        elif fault.kind.of_agent:
            async with self._process[fault.agent]:
                hit = await self._to_agent(fault)
        else:
            async with self._network[fault.agent]:
                hit = await self._to_network(fault, self._fleet.bridges[fault.agent])
        self.done[fault.kind] += hit

    async def _to_coordinator(self, fault: Fault) -> bool:
        coordinator = self._fleet.coordinator
        await self._running(coordinator.listening)
        if self._fleet.finished.done():
            return False
        if fault.kind is Kind.COORDINATOR_STOP:
            hit = await coordinator.hold(fault.seconds)
        else:
            number = signal.SIGKILL if fault.kind is Kind.COORDINATOR_KILL else signal.SIGTERM
            hit = coordinator.end(number, fault.seconds)
            await self._fleet.ended_once_more(coordinator)
        return hit

    async def _to_agent(self, fault: Fault) -> bool:
        agent = self._fleet.agents[fault.agent]
        await self._running(agent.started)
        if self._fleet.finished.done():
            return False
        if fault.kind is Kind.AGENT_STOP:
            return await agent.hold(fault.seconds)
        return agent.end(signal.SIGKILL if fault.kind is Kind.AGENT_KILL else signal.SIGTERM, fault.seconds)

    async def _to_network(self, fault: Fault, bridge: Bridge) -> bool:
        match fault.kind:
            case Kind.DROP:
                bridge.drop()
            case Kind.DELAY:
                bridge.delay(fault.delay)
            case Kind.PAUSE:
                bridge.pause()
            case Kind.BLACK_HOLE:
                bridge.black_hole()
            case _:
                bridge.refuse()
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            bridge.resume()
        return True

    async def _running(self, event: asyncio.Event) -> None:
        waiting = asyncio.ensure_future(event.wait())
        await asyncio.wait({waiting, self._fleet.finished}, timeout=BOUND_SECONDS, return_when="FIRST_COMPLETED")
        waiting.cancel()


class Observer:
    """Looks at the status again and again: no wait is without a name, and none without an end."""

    def __init__(self, fleet: Fleet, run: QuorumRun) -> None:
        self._run = run
        self.looked = self.said = 0
        self.unanswered = 0.0
        self._fleet = fleet
        self._at, self._since = (0, 0), time.monotonic()

    async def look(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self._look_once()

    async def _look_once(self) -> None:
        fleet, coordinator = self._fleet, self._fleet.coordinator
        disturbed = coordinator.disturbed
        if not coordinator.listening.is_set() or coordinator.stopped or coordinator.ending:
            return
        report = await fleet.report()
        if report is None:
            if coordinator.listening.is_set() and coordinator.disturbed == disturbed and not self._farewell():
                fleet.problems.append("the coordinator listens and does not answer")
            return
        self.looked += 1
        silent = silent_wait(report)
        self.said += bool(not silent and report.phase_seconds >= 1.0)
        if silent:
            fleet.problems.append(silent)
        now, at = time.monotonic(), (report.stamp.round, report.stamp.incarnation)
        bound = BOUND_SECONDS if report.stamp.round else _FIRST_SECONDS + _START_SECONDS
        if at != self._at:  # a restarted coordinator waits from its start on
            self._at, self._since = at, now
        elif now - self._since > bound and not fleet.finished.done():
            self._since = now
            lines = "\n".join(status_lines(report))
            fleet.problems.append(f"no round has closed for {bound:g} s:\n{lines}")

    def _farewell(self) -> bool:
        """Whether all rounds are stored: the coordinator then says good-bye to its agents, and answers no more."""
        return read_state(self._fleet.store).rounds == self._run.rounds


async def run_mixed(folder: Path, seed: int, number: int, *, faults: int, secure: bool = False) -> MixedReport:
    """Run `number` of those that follow from a seed, and what came of it."""
    run = plan_quorum_run(seed, number, faults=faults, secure=secure)
    flags = [
        *run.flags(),
        "--session-timeout-seconds",
        f"{SESSION_TIMEOUT_SECONDS:g}",
        "--round-timeout-seconds",
        f"{ROUND_SECONDS:g}",
    ]
    flags += ["--start-seconds", f"{_FIRST_SECONDS:g}"]
    fleet = Fleet(folder, flags, agents=run.agents, witnesses=run.agents, bridged=True, pace=_PACE)
    begun = time.monotonic()
    observer = Observer(fleet, run)
    async with fleet.running():
        mischief = Mischief(fleet, run)
        looking = asyncio.create_task(observer.look())
        try:
            await mischief.wreak()
            if not await fleet.coordinator.ended(_END_SECONDS):
                fleet.problems.append(f"the run does not end within {_END_SECONDS:g} s after the last fault")
            for agent in fleet.agents:
                if not await agent.ended(BOUND_SECONDS):
                    fleet.problems.append(f"{agent.name} does not end within {BOUND_SECONDS:g} s after the run")
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
    seconds = time.monotonic() - begun
    problems = [*fleet.problems, *_problems(fleet, run)]
    return MixedReport(
        run=run,
        done=mischief.done,
        seconds=seconds,
        rounds=read_state(fleet.store).rounds,
        stale=sum(of != row.round for row in stored_rounds(fleet.store) for of in row.contributors.values()),
        void=sum(not row.contributors for row in stored_rounds(fleet.store)),
        incarnations=read_state(fleet.store).incarnation,
        stall=longest_stall(fleet.store)[0],
        overturned=fleet.evidence.overturned(),
        looked=observer.looked,
        said=observer.said,
        problems=problems,
    )


def _problems(fleet: Fleet, run: QuorumRun) -> list[str]:
    """What must not have happened and has."""
    spec = read_state(fleet.store).specification
    found = [*fleet.evidence.lost(fleet.store), *fleet.evidence.miscounted(fleet.store), *fleet.tracebacks()]
    found += fleet.evidence.not_what_was_sent(fleet.store, spec)
    found += fleet.evidence.masked_twice()
    if fleet.evidence.overturned() and not run.secure:
        found.append("a round was told, and came to another basis after a restart")
    rounds = len(stored_rounds(fleet.store))
    if rounds != run.rounds:
        found.append(f"{rounds} of {run.rounds} rounds are stored")
    lines = (fleet.run_folder / "rounds.csv").read_text(encoding="utf-8").splitlines()[1:]
    if [int(line.split(",")[0]) for line in lines] != list(range(rounds)):
        found.append("rounds.csv has a round twice, or lacks one")
    found += [f"{life.name} failed: {life}" for life in fleet.lives() if life.code and not _excused(life)]
    return found


def _excused(life: Life) -> bool:
    """A coordinator whose agents were all away for too long ends by itself, and says so: it is started again."""
    return life.asked or (
        life.name == "coordinator" and "agent" in life.last_words and "came back" in life.last_words
    )  # with secure sums fewer than the smallest cohort never stay away for a round's time
