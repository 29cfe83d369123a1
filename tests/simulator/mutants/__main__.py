"""Faults planted in the machines, one at a time: which of them do simulated runs find?

    PYTHONPATH=tests python -m simulator.mutants --seeds 200

Each mutant is played in a process of its own, in which one line of one module reads otherwise. It is forked from
this one, which has imported what the machines need, and not the machines.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import cospan.core.specification
import cospan.wire.codec.messages  # noqa: F401
from simulator.mutants.catalogue import MUTANTS, Mutant

_LONGEST_SEED_SECONDS = 30.0
"""Of CPU time: a hundred times the mean; a mutant that takes longer does not end."""
_MACHINES = ("cospan.server.machine", "cospan.client.session.machine")


class _MutantLoader(importlib.machinery.SourceFileLoader):
    """Reads the source of one module with the mutant in it."""

    mutant: Mutant

    def get_code(self, fullname: str):  # type: ignore[no-untyped-def]
        """Compiled again: a cached file holds the code without the mutant."""
        return self.source_to_code(self.get_data(self.path), self.path)

    def get_data(self, path: str) -> bytes:
        """The source, changed."""
        return self.mutant.applied(Path(path).read_text(encoding="utf-8")).encode()


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


def _play_mutant(mutant: Mutant, seeds: int) -> str:
    """In the mutant's process: what the first seed that finds it says; empty if none does."""
    assert not any(name in sys.modules for name in _MACHINES), "the machines are imported without the mutant"
    sys.meta_path.insert(0, _Finder(mutant))
    from simulator.plan import plan_of
    from simulator.world import play

    signal.signal(signal.SIGVTALRM, _does_not_end)
    for seed in range(seeds):
        signal.setitimer(signal.ITIMER_VIRTUAL, _LONGEST_SEED_SECONDS)
        violation = play(plan_of(seed)).violation
        if violation:
            return f"seed {seed}: {violation[:150]}"
    return ""


def _does_not_end(_signal: int, _frame: object) -> None:
    raise RuntimeError("a seed does not end")


def _find(mutant: Mutant, seeds: int) -> str:
    """The same, in a process of its own."""
    reads, writes = os.pipe()
    process = os.fork()
    if process == 0:
        said = "it cannot be played"
        try:
            os.close(reads)
            said = _play_mutant(mutant, seeds)
        except Exception as error:  # such as an import that fails
            said = f"no seed: {error!r}"
        finally:
            os.write(writes, said.encode())
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    os.waitpid(process, 0)
    return said


def run_mutants(numbers: Sequence[int], seeds: int) -> list[Mutant]:
    """Plays mutants, prints what finds each, and returns those that no seed finds."""
    survivors, unseen = [], 0
    for number in numbers:
        begun = time.monotonic()
        mutant = MUTANTS[number]
        said = _find(mutant, seeds)
        survivors += [] if said else [mutant]
        unseen += bool(not said and mutant.why_not)
        told = said or (f"SURVIVED ({mutant.why_not})" if mutant.why_not else "SURVIVED")
        print(f"{number:3} {mutant.what}: {told} [{time.monotonic() - begun:.0f} s]", flush=True)
    found = len(numbers) - len(survivors)
    visible = len(numbers) - unseen
    print(
        f"{found} of {len(numbers)} mutants found by {seeds} seeds; {unseen} have no effect to be seen here; "
        f"{found / max(1, visible):.1%} of the others are found"
    )
    return survivors


def main() -> int:
    """1 if a mutant survives that is not known to be equivalent."""
    parser = argparse.ArgumentParser(prog="make mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=300, help="most seeds for each mutant")
    parser.add_argument("--only", help="numbers of mutants, separated by commas; ranges as 3-17")
    parser.add_argument("--all", action="store_true", help="play also those that no seed can find")
    options = parser.parse_args()
    numbers = _numbers(options.only)
    if not options.all and not options.only:
        numbers = [number for number in numbers if not MUTANTS[number].why_not]
    return 1 if any(not mutant.why_not for mutant in run_mutants(numbers, options.seeds)) else 0


def _numbers(only: str | None) -> list[int]:
    if only is None:
        return list(range(len(MUTANTS)))
    numbers: list[int] = []
    for part in only.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


if __name__ == "__main__":
    sys.exit(main())
