"""Faults planted in the machines, one at a time: which of them do simulated runs find?

    PYTHONPATH=tests python -m simulator.mutants --seeds 200

Each mutant is played in a process of its own, in which one line of one module reads otherwise. It is forked from
this one, which has imported what the machines need, and not the machines.
"""

import argparse
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import pickle
import signal
import sys
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cospan.core.specification
import cospan.wire.codec.messages  # noqa: F401
from simulator.mutants.catalogue import GUARDED, MUTANTS
from simulator.mutants.mutant import Mutant
from simulator.mutants.reach import play_watched, watched
from simulator.plan import plan_of

_LONGEST_SEED_SECONDS = 30.0
"""Of CPU time: a hundred times the mean; a mutant that takes longer does not end."""
_MACHINE_NAMES = {"server": "coordinator", "client": "session", "relay": "relay"}
_MACHINES = ("cospan.server.machine", "cospan.client.session.machine")


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a module with a mutant in it, or with its guards watched."""

    mutant: Mutant | None

    def get_code(self, fullname: str):  # type: ignore[no-untyped-def]
        """Compiled again: a cached file holds the code as it is."""
        source = Path(self.path).read_text(encoding="utf-8")
        if self.mutant is None:
            return compile(watched(source, fullname), self.path, "exec")
        return compile(self.mutant.applied(source), self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the module of the mutant, or all that are watched, and leaves others to others."""

    def __init__(self, mutant: Mutant | None) -> None:
        self._mutant = mutant
        self._modules = GUARDED if mutant is None else (mutant.module,)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec with the loader that changes it."""
        if fullname not in self._modules:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert found is not None
        assert found.origin is not None
        loader = _Loader(fullname, found.origin)
        loader.mutant = self._mutant
        return importlib.util.spec_from_file_location(fullname, found.origin, loader=loader)


def _play_mutant(mutant: Mutant, seeds: Sequence[int]) -> str:
    """In the mutant's process: what the first seed that finds it says; empty if none does."""
    assert not any(name in sys.modules for name in _MACHINES), "the machines are imported without the mutant"
    assert mutant.module not in sys.modules, "a module is imported without its mutant"
    sys.meta_path.insert(0, _Finder(mutant))
    from simulator.world import play

    signal.signal(signal.SIGVTALRM, _does_not_end)
    for seed in seeds:
        signal.setitimer(signal.ITIMER_VIRTUAL, _LONGEST_SEED_SECONDS)
        violation = play(plan_of(seed)).violation
        if violation:
            return f"seed {seed}: {violation[:150]}"
    return ""


def _does_not_end(_signal: int, _frame: object) -> None:
    raise RuntimeError("a seed does not end")


def _forked(work: Callable[[], Any]) -> Any:
    """The result of some work in a process of its own, which has not imported the machines yet."""
    reads, writes = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.close(reads)
            with os.fdopen(writes, "wb") as pipe:
                pipe.write(pickle.dumps(work()))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        said = pipe.read()
    os.waitpid(process, 0)
    return pickle.loads(said) if said else "it cannot be imported"


def _reached(seeds: int) -> dict[tuple[str, str], list[int]]:
    """The seeds that reach each generated mutant."""

    def work() -> dict[tuple[str, str], list[int]]:
        sys.meta_path.insert(0, _Finder(None))
        return play_watched(range(seeds))

    reached: dict[tuple[str, str], list[int]] = _forked(work)
    return reached


def _tried(mutant: Mutant, seeds: int) -> list[int]:
    """The seeds that a mutant written by hand is played with."""
    return [seed for seed in range(seeds) if not mutant.secure_sums or plan_of(seed).settings.min_cohort]


def run_mutants(numbers: Sequence[int], seeds: int, most_plays: int | None) -> list[Mutant]:
    """Plays mutants, prints what finds each and then the share, and returns those that no seed finds.

    Args:
        numbers: places in `MUTANTS`. Those that are known to have no effect are counted, and not played.
        seeds: how many there are to find them, from 0.
        most_plays: how many of those a generated mutant is played with that reach it; None for all.
    """
    survivors: list[Mutant] = []
    outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    reached = _reached(seeds) if any(MUTANTS[number].key for number in numbers) else {}
    for number in numbers:
        mutant = MUTANTS[number]
        kind = ("generated, " if mutant.key else "by hand, ") + _MACHINE_NAMES[mutant.module.split(".")[1]]
        if mutant.why_not:
            outcomes[kind]["no effect"] += 1
            print(f"{number:3} {mutant.what}: not played ({mutant.why_not})", flush=True)
            continue
        tried = reached.get((mutant.module, mutant.key), [])[:most_plays] if mutant.key else _tried(mutant, seeds)
        said = _forked(functools.partial(_play_mutant, mutant, tried)) if tried else ""
        survivors += [] if said else [mutant]
        outcomes[kind]["found" if said else "open"] += 1
        print(f"{number:3} {mutant.what}: {said or f'SURVIVED {len(tried)} seeds'}", flush=True)
    _print_shares(survivors, outcomes, seeds)
    return survivors


def _print_shares(survivors: Sequence[Mutant], outcomes: Mapping[str, Counter[str]], seeds: int) -> None:
    """The last lines: what is open, and the shares by machine and of all."""
    for mutant in survivors:
        print(f"open: {mutant.what}")
    total = sum(outcomes.values(), Counter[str]())
    for kind, counts in (*sorted(outcomes.items()), ("all", total)):
        seen = counts["found"] + counts["open"]
        print(
            f"{kind}: {counts['found']} of {seen} found by {seeds} seeds ({counts['found'] / max(1, seen):.1%}); "
            f"{counts['no effect']} more have no effect to be seen here"
        )


def main() -> int:
    """1 if a mutant survives that is not known to have no effect."""
    parser = argparse.ArgumentParser(prog="make mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds there are to find them")
    parser.add_argument(
        "--plays", type=int, help="most seeds that a generated mutant is played with; all by default"
    )
    parser.add_argument("--only", help="numbers of mutants, separated by commas; ranges as 3-17")
    options = parser.parse_args()
    return 1 if run_mutants(_numbers(options.only), options.seeds, options.plays) else 0


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
