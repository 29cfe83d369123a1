"""`python -m faults`: breaks fleets from a seed, and says what came of it. `make faults` calls it."""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cospan.cli.process import prepare_environment

prepare_environment()

from faults import kills  # noqa: E402

PARTS = ("kills", "mixed", "state-lost")


def main() -> int:
    """Runs the parts; 0 where nothing was lost."""
    chosen = _arguments()
    seed = random.randrange(2**31) if chosen.seed is None else chosen.seed
    again = f"make faults SEED={seed}"
    print(f"seed {seed}; again with: {again}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="cospan-faults-"))
    parts: dict[str, Callable[[], list[str]]] = {"kills": lambda: _kills(folder, seed, chosen)}
    failed = []
    for name in chosen.parts.split(","):
        begun = time.monotonic()
        problems = parts[name]()
        print(f"{name}: {'FAILED' if problems else 'passed'} after {time.monotonic() - begun:.0f} s", flush=True)
        for problem in problems[:20]:
            print(f"  {problem}", flush=True)
        failed += [name] if problems else []
    if failed:
        print(f"failed: {', '.join(failed)}; all files are in {folder}; again with: {again} PARTS={','.join(failed)}")
        return 1
    shutil.rmtree(folder)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--seed", type=int, help="of every random choice; drawn and printed where left out")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"which of {', '.join(PARTS)}")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2000, help="of the run whose coordinator is killed")
    parser.add_argument("--agents", type=int, default=8, help="of that run")
    return parser.parse_args()


def _kills(folder: Path, seed: int, chosen: argparse.Namespace) -> list[str]:
    report = asyncio.run(
        kills.run_kills(
            folder / "kills", seed, rounds=chosen.rounds, agents=chosen.agents, kills=chosen.kills
        )
    )
    print("\n".join(report.lines()), flush=True)
    return report.problems


if __name__ == "__main__":
    sys.exit(main())
