"""`make simulate-real`: plays scripts in the simulator and with real processes, and compares what they end with.

PYTHONPATH=tests python -m simulator.alike --seed 1 --seeds 100
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from simulator.alike.compare import compared
from simulator.alike.script import script_of


def main() -> int:
    """1 if a seed ends otherwise in the two worlds."""
    parser = argparse.ArgumentParser(prog="make simulate-real", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, help="the first seed; random by default")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to play, one after another")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}; it must be at least 1")
    first = random.randrange(2**31) if options.seed is None else options.seed
    print(f"seeds {first} to {first + options.seeds - 1}; again with: make simulate-real SEED={first}", flush=True)
    failed = rounds = voids = 0
    begun = time.monotonic()
    for seed in range(first, first + options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            compared_once = compared(script_of(seed), Path(folder))
        rounds, voids = rounds + len(compared_once.played), voids + compared_once.voids
        if compared_once.problem:
            failed += 1
            print(f"\nseed {seed}: {compared_once.problem}\n{script_of(seed)}", flush=True)
    seconds = time.monotonic() - begun
    print(
        f"{options.seeds - failed} of {options.seeds} seeds end alike: {rounds} rounds, {voids} of them void, "
        f"{seconds:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
