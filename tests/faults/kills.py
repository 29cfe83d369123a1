"""A coordinator that is killed at random moments of one run, by SIGKILL, and started again."""

import asyncio
import json
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from faults.evidence import digest_of, stored_rounds
from faults.fleet import WORKLOAD, Fleet
from faults.plan import Kill, plan_kills
from faults.processes import cospan, environment
from faults.stalls import QUIET_STALL, Stall, judged

_WITNESSES = 2
_PACE = 0.001
_STEP_SECONDS = 60.0
"""Nothing that a kill waits for takes longer."""


@dataclass(frozen=True, slots=True)
class KillsReport:
    """What came of it. `problems` is empty when all is well."""

    rounds: int
    kills: int
    seconds: float
    longest: Stall
    closest: Stall
    overturned: int
    digest: str
    reference: str
    problems: list[str]

    def lines(self) -> list[str]:
        """For people."""
        same = "the same bits as without faults" if self.digest == self.reference else "OTHER BITS"
        return [
            f"kills: {self.kills} SIGKILLs of the coordinator in {self.rounds} rounds, {self.seconds:.0f} s",
            f"  basis_sha256 {self.digest[:16]}…: {same}",
            f"  longest stall {self.longest}",
            *([f"  closest to what is allowed: {self.closest}"] if self.closest != self.longest else []),
            f"  bases told ahead of the disk that came to be others: {self.overturned}",
        ]


def reference_digest(folder: Path, flags: list[str]) -> str:
    """`basis_sha256` of the same run in one process, where nothing can be lost."""
    command = cospan(
        "run", WORKLOAD, *flags, "--in-process", "--quiet", "--json", "--output", str(folder / "alone")
    )
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(PACE_SECONDS="0"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    return str(json.loads(done.stdout)["basis_sha256"])


async def run_kills(folder: Path, seed: int, *, rounds: int, agents: int, kills: int) -> KillsReport:
    """One run in a new folder with full participation, `kills` of its coordinator, and what came of it."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    flags = ["--agents", str(agents), "--rounds", str(rounds), "--seed", str(seed)]
    reference = await asyncio.to_thread(reference_digest, folder, flags)
    # A fleet whose coordinator comes back at once is never given up, however slow the machine is.
    flags += ["--session-timeout-seconds", "20"]
    fleet = Fleet(folder, flags, agents=agents, witnesses=_WITNESSES, bridged=False, pace=_PACE)
    plan = plan_kills(seed, kills=kills, rounds=rounds)
    begun, killed = time.monotonic(), 0
    async with fleet.running():
        for kill in plan:
            killed += await _kill(fleet, kill)
        if not await fleet.coordinator.ended(_STEP_SECONDS + rounds * 0.1):
            fleet.problems.append("the run does not end")
        for agent in fleet.agents:
            if not await agent.ended(_STEP_SECONDS):
                fleet.problems.append(f"{agent.name} does not end")
    seconds = time.monotonic() - begun
    stalls = judged(stored_rounds(fleet.store), [life.start for life in fleet.coordinator.lives])
    nothing = Stall(0, 0.0, 0.0, QUIET_STALL)
    longest = max(stalls, key=lambda stall: stall.seconds, default=nothing)
    closest = max(stalls, key=lambda stall: stall.seconds / stall.allowed, default=nothing)
    digest = digest_of(fleet.store)
    problems = [*fleet.problems, *_problems(fleet, rounds, agents)]
    if killed != kills:
        problems.append(f"{killed} of {kills} kills have hit")
    if digest != reference:
        problems.append(f"basis_sha256 is {digest}, and without faults {reference}")
    problems += [f"the run stalled for {stall}: {stall.lives}" for stall in stalls if stall.is_too_long]
    return KillsReport(
        rounds, killed, seconds, longest, closest, fleet.evidence.overturned(), digest, reference, problems
    )


async def _kill(fleet: Fleet, kill: Kill) -> bool:
    """Kills at the moment that is planned; whether there was a process to kill."""
    async with asyncio.timeout(_STEP_SECONDS):
        if kill.after_round is None:
            await fleet.coordinator.started.wait()
        else:
            await fleet.reached(kill.after_round)
            await fleet.coordinator.listening.wait()
        await asyncio.sleep(kill.seconds)
        hit = fleet.coordinator.end(signal.SIGKILL)
        if hit:
            await fleet.ended_once_more(fleet.coordinator)
    return hit


def _problems(fleet: Fleet, rounds: int, agents: int) -> list[str]:
    """What must not have happened and has."""
    found = [*fleet.evidence.lost(fleet.store), *fleet.evidence.miscounted(fleet.store), *fleet.tracebacks()]
    stored = stored_rounds(fleet.store)
    if len(stored) != rounds:
        found.append(f"{len(stored)} of {rounds} rounds are stored")
    found += [
        f"round {row.round} counts {len(row.contributors)} of {agents} agents"
        for row in stored
        if len(row.contributors) != agents
    ]
    lines = (fleet.run_folder / "rounds.csv").read_text(encoding="utf-8").splitlines()[1:]
    if [int(line.split(",")[0]) for line in lines] != list(range(rounds)):
        found.append("rounds.csv has a round twice, or lacks one")
    found += [f"{life.name} ended by itself: {life}" for life in fleet.lives() if not life.asked and life.code]
    if fleet.evidence.overturned():
        found.append("a round was told, and came to another basis after a restart")
    return found
