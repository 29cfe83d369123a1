"""What `make faults` and `make fuzz` have in common: parts that are run from a seed, and what is said of them."""

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_SHOWN = 12

Part = Callable[[], list[str]]
"""Runs, and returns a sentence for each problem."""


def run_parts(target: str, seed: int | None, names: str, parts: Callable[[Path, int], Mapping[str, Part]]) -> int:
    """Runs some parts, one after the other; 0 where there was no problem.

    Args:
        target: of make; it repeats the run with what is printed.
        seed: of every random choice; drawn where it is None.
        names: of the parts, separated by commas.
        parts: all of them by name, for the folder of their files and the seed.
    """
    seed = random.randrange(2**31) if seed is None else seed
    again = f"make {target} SEED={seed}"
    print(f"seed {seed}; again with: {again}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix=f"cospan-{target}-"))
    every, failed = parts(folder, seed), []
    for name in names.split(","):
        begun = time.monotonic()
        problems = every[name]()
        print(f"{name}: {'FAILED' if problems else 'passed'} after {time.monotonic() - begun:.0f} s", flush=True)
        for problem in problems[:_SHOWN]:
            print(f"  {problem}", flush=True)
        failed += [name] if problems else []
    if failed:
        left = ",".join(failed)
        print(f"failed: {', '.join(failed)}; all files are in {folder}; again with: {again} PARTS={left}")
        return 1
    shutil.rmtree(folder)
    return 0
