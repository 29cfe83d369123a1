"""`make simulate`: plays seeds, and says what was injected and how fast.

PYTHONPATH=tests python -m simulator --seed 1 --seeds 1000
"""

import argparse
import gc
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from simulator.plan import Kind, plan_of
from simulator.shrink import pasteable_test, shrink
from simulator.world import play

_MOST_VIOLATIONS = 3


def main() -> int:
    """1 if a seed violates what must hold."""
    parser = argparse.ArgumentParser(prog="make simulate", description="Play runs with faults, each from its seed.")
    parser.add_argument("--seed", type=int, help="the first seed; random by default")
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to play, one after another")
    parser.add_argument("--no-shrink", action="store_true", help="print failing seeds only")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}; it must be at least 1")
    first = random.randrange(2**31) if options.seed is None else options.seed
    last = first + options.seeds - 1
    print(f"seeds {first} to {last}; again with: make simulate SEED={first} SEEDS={options.seeds}", flush=True)
    # A run makes many frozen values and few cycles: collected as seldom as this, it takes a tenth less time.
    gc.freeze()
    gc.set_threshold(100_000)
    failed = _play_all(first, options.seeds)
    for seed, violation in failed[:_MOST_VIOLATIONS]:
        print(f"\nseed {seed} of commit {_commit()}: {violation}\nagain with: make simulate SEED={seed} SEEDS=1")
        if not options.no_shrink:
            smallest = shrink(plan_of(seed))
            print(f"\n{pasteable_test(smallest, play(smallest))}")
    return 1 if failed else 0


def _play_all(first: int, count: int) -> list[tuple[int, str]]:
    """Plays seeds and prints the mix of faults; the seeds that fail."""
    injected: Counter[Kind] = Counter()
    rounds = events = sums = voids = 0
    failed, seconds, begun = [], 0.0, time.process_time()
    for seed in range(first, first + count):
        result = play(plan_of(seed))
        injected += result.injected
        rounds, events, seconds = rounds + result.rounds, events + result.events, seconds + result.seconds
        sums, voids = sums + result.sums, voids + result.voids
        if result.violation:
            failed.append((seed, result.violation))
            if len(failed) == _MOST_VIOLATIONS:
                print(f"stopped at seed {seed}: {_MOST_VIOLATIONS} seeds have failed")
                break
    spent, total = max(1e-9, time.process_time() - begun), injected.total()
    for kind, times in sorted(injected.items(), key=lambda pair: -pair[1]):
        print(f"{times:9,}  {kind.value}")
    print(
        f"{sums:9,}  secure sums, and {voids:,} void rounds\n"
        f"{total:9,}  faults in {rounds:,} rounds, {events:,} events and {seconds:,.0f} s of virtual time; "
        f"{spent:.1f} s of CPU time, {total / spent * 3600:,.0f} faults per CPU-hour; {len(failed)} seeds failed"
    )
    return failed


def _commit() -> str:
    """The commit that is checked out, with a mark if files have changed since."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown (no git)"


if __name__ == "__main__":
    sys.exit(main())
