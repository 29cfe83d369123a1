"""`python -m faults`: breaks fleets from a seed, and says what came of it. `make faults` calls it."""

import argparse
import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from cospan.cli.processes.this_process import prepare_environment

prepare_environment(())

from faults import hostile, kills, mixed, resume, sockets, state_lost  # noqa: E402
from faults.plan import Kind  # noqa: E402
from faults.processes import TESTS  # noqa: E402
from parts import Part, run_parts  # noqa: E402

PARTS = ("kills", "mixed", "state-lost", "resume", "hostile", "sockets", "containers")
_CONTAINER_KILLS = 20


def main() -> int:
    """Runs the parts; 0 where nothing was lost."""
    chosen = _arguments()

    def parts(folder: Path, seed: int) -> dict[str, Part]:
        return {
            "kills": lambda: _kills(folder, seed, chosen),
            "mixed": lambda: _mixed(folder, seed, chosen),
            "state-lost": lambda: asyncio.run(state_lost.run_state_lost(folder / "state-lost", seed)),
            "resume": lambda: _resume(folder, seed),
            "hostile": lambda: _hostile(folder, seed, chosen),
            "sockets": lambda: _sockets(folder),
            "containers": lambda: _containers(seed),
        }

    return run_parts("faults", chosen.seed, chosen.parts, parts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--seed", type=int, help="of every random choice; drawn and printed where left out")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"which of {', '.join(PARTS)}")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2000, help="of the run whose coordinator is killed")
    parser.add_argument("--agents", type=int, default=8, help="of that run")
    parser.add_argument("--faults", type=int, default=500, help="of all kinds, over runs with a quorum")
    parser.add_argument("--faults-per-run", type=int, default=50)
    parser.add_argument("--secure", action="store_true", help="these runs have secure sums, and no quorum")
    parser.add_argument("--connections", type=int, default=10_000, help="that hostile peers open at once")
    parser.add_argument("--only-run", type=int, help="of these, the one with this number")
    return parser.parse_args()


def _kills(folder: Path, seed: int, chosen: argparse.Namespace) -> list[str]:
    report = asyncio.run(
        kills.run_kills(folder / "kills", seed, rounds=chosen.rounds, agents=chosen.agents, kills=chosen.kills)
    )
    print("\n".join(report.lines()), flush=True)
    return report.problems


def _mixed(folder: Path, seed: int, chosen: argparse.Namespace) -> list[str]:
    runs = -(-chosen.faults // chosen.faults_per_run)
    numbers = range(runs) if chosen.only_run is None else [chosen.only_run]
    done: Counter[Kind] = Counter()
    problems = []
    what = "secure sums" if chosen.secure else "a quorum"
    print(f"mixed: {runs} runs with {what}, {chosen.faults_per_run} faults in each", flush=True)
    for number in numbers:
        report = asyncio.run(
            mixed.run_mixed(
                folder / f"mixed-{number}", seed, number, faults=chosen.faults_per_run, secure=chosen.secure
            )
        )
        print(f"  run {number}:{report.line()[1:]}", flush=True)
        problems += [f"run {number}: {problem}" for problem in report.problems]
        done += report.done
    print("  " + ", ".join(f"{kind.value} {done[kind]}" for kind in Kind), flush=True)
    print(f"  {done.total()} faults in all", flush=True)
    return problems


def _resume(folder: Path, seed: int) -> list[str]:
    report = resume.run_resume(folder / "resume", seed)
    print("\n".join(report.lines), flush=True)
    return report.problems


def _hostile(folder: Path, seed: int, chosen: argparse.Namespace) -> list[str]:
    report = asyncio.run(hostile.run_hostile(folder / "hostile", seed, connections=chosen.connections))
    print("\n".join(report.lines), flush=True)
    return report.problems


def _sockets(folder: Path) -> list[str]:
    report = asyncio.run(sockets.run_sockets(folder / "sockets"))
    print("\n".join(report.lines), flush=True)
    return report.problems


def _containers(seed: int) -> list[str]:
    """The end-to-end test that kills a coordinator's container, more often."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        "coordinator_killed",
        str(TESTS / "e2e" / "test_faults.py"),
    ]
    settings = {"COORDINATOR_KILLS": str(_CONTAINER_KILLS), "COORDINATOR_KILLS_SEED": str(seed)}
    done = subprocess.run(command, cwd=TESTS.parent, env=os.environ | settings, check=False, timeout=1800)
    return [f"pytest ended with {done.returncode}"] if done.returncode else []


if __name__ == "__main__":
    sys.exit(main())
