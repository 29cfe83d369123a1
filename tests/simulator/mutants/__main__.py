"""Faults planted in the machines, one at a time: which of them do simulated runs find?

    PYTHONPATH=tests python -m simulator.mutants --seeds 200

Each mutant is played in a process of its own, in which one line of one module reads otherwise.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from simulator.mutants.catalogue import MUTANTS, Mutant

_LONGEST_SECONDS = 600.0
_FOUND, _SURVIVED = 3, 0


class _MutantLoader(importlib.machinery.SourceFileLoader):
    """Reads the source of one module with the mutant in it."""

    mutant: Mutant

    def get_code(self, fullname: str):  # type: ignore[no-untyped-def]
        """Compiled again: a cached file holds the code without the mutant."""
        return self.source_to_code(self.get_data(self.path), self.path)

    def get_data(self, path: str) -> bytes:
        """The source, changed."""
        return mutated(Path(path).read_text(encoding="utf-8"), self.mutant).encode()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the module of the mutant, and leaves all others to others."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec with the loader that changes it."""
        if fullname != self._mutant.module:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert found is not None
        assert found.origin is not None
        loader = _MutantLoader(fullname, found.origin)
        loader.mutant = self._mutant
        return importlib.util.spec_from_file_location(fullname, found.origin, loader=loader)


def mutated(source: str, mutant: Mutant) -> str:
    """The source with the mutant.

    Raises:
        ValueError: what it replaces is not there exactly once; the list has to follow the code.
    """
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.module} has {source.count(mutant.old)} times {mutant.old!r}, and not once")
    return source.replace(mutant.old, mutant.new)


def source_path(mutant: Mutant) -> Path:
    """The file of the module."""
    found = importlib.util.find_spec(mutant.module)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin)


def _play_mutant(number: int, seeds: int) -> int:
    """In the mutant's process: plays seeds until one finds it."""
    sys.meta_path.insert(0, _Finder(MUTANTS[number]))
    from simulator.plan import plan_of
    from simulator.world import play

    for seed in range(seeds):
        violation = play(plan_of(seed)).violation
        if violation:
            print(f"seed {seed}: {violation[:150]}")
            return _FOUND
    return _SURVIVED


def run_mutants(numbers: Sequence[int], seeds: int) -> list[Mutant]:
    """Plays mutants, prints what finds each, and returns those that no seed finds."""
    survivors = []
    for number in numbers:
        command = [sys.executable, "-m", "simulator.mutants", "--play", str(number), "--seeds", str(seeds)]
        begun = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_SECONDS, check=False)
        if done.returncode not in (_FOUND, _SURVIVED):
            raise RuntimeError(f"mutant {number} cannot be played: {done.stderr[-2000:]}")
        found = done.returncode == _FOUND
        mutant = MUTANTS[number]
        said = done.stdout.strip() if found else f"SURVIVED ({mutant.why_not})" if mutant.why_not else "SURVIVED"
        print(f"{number:3} {mutant.what}: {said} [{time.monotonic() - begun:.0f} s]", flush=True)
        survivors += [] if found else [mutant]
    print(f"{len(numbers) - len(survivors)} of {len(numbers)} mutants found by {seeds} seeds")
    return survivors


def main() -> int:
    """1 if a mutant survives that is not known to be equivalent."""
    parser = argparse.ArgumentParser(prog="make mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=300, help="most seeds for each mutant")
    parser.add_argument("--only", help="numbers of mutants, separated by commas")
    parser.add_argument("--play", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play is not None:
        return _play_mutant(options.play, options.seeds)
    numbers = [int(each) for each in options.only.split(",")] if options.only else range(len(MUTANTS))
    return 1 if any(not mutant.why_not for mutant in run_mutants(list(numbers), options.seeds)) else 0


if __name__ == "__main__":
    sys.exit(main())
