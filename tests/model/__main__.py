"""`make model`: searches all states of tiny runs, and has the search find what removed guards are for.

PYTHONPATH=tests python -m model --only 1,2
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence

from model.guards import GUARDS, Guard, removed
from model.parties import Settings
from model.search import Found, Search
from model.traces import strangers

SEARCHES: Mapping[str, Settings] = {
    "2 agents, 3 rounds, any fault": Settings(agents=2, faults=1),
    "3 agents, 3 rounds, any fault, slow arithmetic": Settings(faults=1, computes_at_once=False),
    "3 agents, 3 rounds, any fault, 1 round ahead of the disk": Settings(faults=1, inflight_rounds=1),
    "2 agents, 4 rounds, any 2 faults": Settings(agents=2, rounds=4),
    "3 agents, 3 rounds, any 2 faults": Settings(),
}
QUICK_SEARCHES, QUICK_GUARDS = 1, 5
_SIMULATED_SEEDS, _MOST_SHOWN = 100, 3


def main() -> int:
    """1 if something does not hold, or a guard is removed and nothing is found."""
    parser = argparse.ArgumentParser(prog="make model", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest search, and some of the guards")
    parser.add_argument("--only", help="numbers of searches, from 1 and separated by commas; 0 for the guards")
    options = parser.parse_args()
    searches = list(SEARCHES.items())[: QUICK_SEARCHES if options.quick else None]
    guards: Sequence[Guard] = GUARDS[: QUICK_GUARDS if options.quick else None]
    if options.only:
        only = {int(each) for each in options.only.split(",")}
        searches = [each for number, each in enumerate(searches, 1) if number in only]
        guards = guards if 0 in only else ()
    begun = time.process_time()
    good = [_search(name, settings) for name, settings in searches] + [_without(guard) for guard in guards]
    if not (options.quick or options.only):
        good.append(_simulated())
    print(f"{time.process_time() - begun:.0f} s of CPU time; {good.count(False)} of {len(good)} failed")
    return 0 if all(good) else 1


def _search(name: str, settings: Settings) -> bool:
    found = Search(settings).run()
    parts = ", ".join(f"{count:,} {what}" for what, count in found.parts.items())
    print(f"{name}: {found.states:,} states, {found.moves:,} moves, depth {found.depth}; {parts}", end="")
    print(f" [{found.seconds:.0f} s]", flush=True)
    _say(found)
    return not found.violation


def _without(guard: Guard) -> bool:
    with removed(guard):
        found = Search(guard.settings).run()
    what = f"found after {len(found.path)} moves: {found.violation}" if found.violation else "NOT FOUND"
    print(f"without a guard, {guard.what}: {what} [{found.states:,} states, {found.seconds:.0f} s]", flush=True)
    return bool(found.violation)


def _simulated() -> bool:
    search = Search(Settings(faults=1, computes_at_once=False))
    search.run()
    count, found = strangers(search, range(_SIMULATED_SEEDS))
    print(f"{count:,} states of {_SIMULATED_SEEDS} simulated runs, {len(found)} of them not found by the search")
    print("".join(f"  {each}\n" for each in found[:_MOST_SHOWN]), end="", flush=True)
    return bool(count) and not found


def _say(found: Found) -> None:
    if found.violation:
        print(f"VIOLATION: {found.violation}, after:")
        print("".join(f"  {number:3} {label}\n" for number, label in enumerate(found.path, 1)))


if __name__ == "__main__":
    sys.exit(main())
