"""Runs of real processes with a fuzzer among them: two honest agents go on, and end as ever.

With a warm-up that lasts until the fuzzer is done, a member's gradient counts and yet moves no basis: so the run
has to end with the very bits that it has without the fuzzer. Without one, whatever counts moves the basis, as it
should; then it has to be a basis all the same.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from faults.evidence import digest_of
from faults.fleet import Fleet
from faults.footprint import open_files, resident_mib
from fuzz.live import LiveFuzzer

from cospan.cli.processes.admin_client import fetch_run
from cospan.core.linalg.subspace import orthonormality_error
from cospan.server.storage.reader import read_basis
from cospan.wire.errors import CospanError
from cospan.wire.messages import RunPhase, RunReport

MOST_GROWTH = 1.05
_AGENTS = 2
_PLANNED = 1024
"""What a peer may open follows from how many agents the run plans for: enough that the fuzzer is heard."""
_START_SECONDS = 10
"""How long the run waits for the others before it begins with the two that there are."""
_PACE_SECONDS = 0.01
"""What a step of an honest agent takes during the fuzzing; a round takes five steps."""
_REMEMBERED_ROUNDS = 2_100
"""By then the coordinator has as many rounds in its memory as it ever has."""
_MESSAGES_A_ROUND = 2
"""At least; on a slow machine rounds are slower, too."""
_ROUNDS_A_LOOK = 50
_ROUNDS_AFTER = 500
_TENTHS = 10
_ROUNDS_SECONDS = 600.0
_FEWEST_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Look:
    """The coordinator after that many fuzzed messages: resident memory in MiB, and open files."""

    messages: int
    round: int
    memory: float
    files: int
    seconds: float

    def line(self) -> str:
        """For people."""
        return (
            f"  {self.messages:>8,} messages, {self.seconds:>5.0f} s, round {self.round:>6,} "
            f"{self.memory:>8.2f} MiB {self.files:>4} files"
        )


async def run_live(folder: Path, count: int, seed: int) -> list[str]:
    """Both kinds of runs, the second one with a quarter of the messages; what went wrong."""
    problems = await _run(folder / "warm-up", count, seed, warm_up=True)
    return problems + await _run(folder / "rounds", count // 4, seed, warm_up=False)


async def _run(folder: Path, count: int, seed: int, *, warm_up: bool) -> list[str]:
    rounds = _REMEMBERED_ROUNDS + _TENTHS * _ROUNDS_A_LOOK + count // _MESSAGES_A_ROUND
    flags = ["--agents", str(_PLANNED), "--min-agents", str(_AGENTS), "--start-seconds", str(_START_SECONDS)]
    flags += ["--preset", "paper", "--seed", str(seed % 2**31)]
    flags += ["--rounds", str(rounds + _ROUNDS_AFTER)]
    flags += ["--warm-up-rounds", str(rounds)] if warm_up else []
    slow = folder / "slow"
    fleet = Fleet(
        folder / "fuzzed", flags, agents=_AGENTS, witnesses=0, bridged=False, pace=_PACE_SECONDS, pace_while=slow
    )
    looks: list[Look] = []
    async with fleet.running():
        try:
            problems = await _fuzz(fleet, count, seed, slow, looks)
            if looks[-1].round >= rounds:
                problems.append(f"round {looks[-1].round} came before the fuzzer was done; it needs more rounds")
            problems += await _ended(fleet)
        except (CospanError, TimeoutError) as failure:
            problems = [f"the coordinator does not answer any more: {failure}"]
    problems += _judged(looks) + _said(fleet)
    if not problems:
        problems += await _last_basis(fleet, folder / "alone", flags) if warm_up else _is_a_basis(fleet)
    return [f"{folder.name}: {problem}" for problem in problems]


async def _fuzz(fleet: Fleet, count: int, seed: int, slow: Path, looks: list[Look]) -> list[str]:
    """Sends `count` messages, with a look after every tenth; what was wrong with the answers."""
    before = await _round_reached(fleet, _REMEMBERED_ROUNDS)
    await asyncio.to_thread(slow.touch)
    begun = time.monotonic()
    async with LiveFuzzer(fleet.address, before.specification, seed=seed) as fuzzer:
        for tenth in range(1, _TENTHS + 1):
            await fuzzer.send(tenth * count // _TENTHS - fuzzer.counts.sent)
            looks.append(await _look(fleet, fuzzer.counts.sent, begun))
        print("\n".join(fuzzer.counts.lines()), flush=True)
    await asyncio.to_thread(slow.unlink)
    return fuzzer.counts.problems


async def _round_reached(fleet: Fleet, number: int) -> RunReport:
    """What the coordinator says once it has come so far."""
    async with asyncio.timeout(_ROUNDS_SECONDS):
        while True:
            report = await fetch_run(fleet.address)
            if report.stamp.round >= number and report.phase is RunPhase.COLLECTING:
                return report
            await asyncio.sleep(0.1)


async def _look(fleet: Fleet, messages: int, begun: float) -> Look:
    report = await fetch_run(fleet.address)
    pid = fleet.coordinator.pid
    look = Look(messages, report.stamp.round, resident_mib(pid), await open_files(pid), time.monotonic() - begun)
    print(look.line(), flush=True)
    return look


async def _ended(fleet: Fleet) -> list[str]:
    """Waits for the end of the run; who did not come to it in order."""
    late = [each.name for each in (fleet.coordinator, *fleet.agents) if not await each.ended(_ROUNDS_SECONDS)]
    codes = {life.name: life.code for life in fleet.lives() if life.code != 0}
    several = len(fleet.lives()) - len(fleet.agents) - 1
    problems = [f"{name} did not end" for name in late]
    problems += [f"{name} ended with {code}" for name, code in codes.items()]
    return problems + ([f"{several} processes were started again"] if several > 0 else [])


def _judged(looks: list[Look]) -> list[str]:
    """What has grown after the first tenth."""
    if len(looks) < _TENTHS:
        return [f"it ended after {len(looks)} tenths of the messages"]
    warm, last = looks[0], looks[-1]
    growth = max(look.memory for look in looks) / warm.memory
    print(f"  memory after the warm-up: largest {growth:.4f} times the first; bound {MOST_GROWTH}", flush=True)
    problems = [f"memory has grown by {100 * (growth - 1):.1f} %"] if growth > MOST_GROWTH else []
    if last.files > warm.files:
        problems.append(f"{warm.files} open files have become {last.files}")
    if last.round - warm.round < _FEWEST_ROUNDS:
        problems.append(f"only {last.round - warm.round} rounds have closed meanwhile")
    return problems


def _said(fleet: Fleet) -> list[str]:
    """Errors in the coordinator's log, and anything with a traceback on standard error."""
    lines = (fleet.run_folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    errors = [line for line in map(json.loads, lines) if line["level"] in ("error", "critical")]
    return [f"the log has: {line}" for line in errors[:3]] + fleet.tracebacks()


async def _last_basis(fleet: Fleet, folder: Path, flags: list[str]) -> list[str]:
    """The same run without the fuzzer has to come to the same bits."""
    alone = Fleet(folder, flags, agents=_AGENTS, witnesses=0, bridged=False, pace=0.0)
    async with alone.running():
        problems = await _ended(alone)
    digests = digest_of(fleet.store), digest_of(alone.store)
    print(f"  basis_sha256 with the fuzzer {digests[0][:16]}…, without {digests[1][:16]}…", flush=True)
    return problems + ([] if digests[0] == digests[1] else [f"the last basis is another: {digests}"])


def _is_a_basis(fleet: Fleet) -> list[str]:
    basis = read_basis(fleet.store).basis
    fine = np.isfinite(basis).all() and orthonormality_error(basis) < 1e-12
    return [] if fine else ["the last basis is not orthonormal"]
