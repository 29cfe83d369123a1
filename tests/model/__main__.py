"""`make model`: searches all states of tiny runs, and has the search find what removed guards are for.

PYTHONPATH=tests python -m model --only 1,2
"""

import argparse
import sys
import time
from collections.abc import Mapping

from model.guards import GUARDS, Guard, removed
from model.parties import Settings
from model.search import Found, Search
from model.traces import strangers

_STOPS = {"agent_stops": 0, "cuts": 0, "timeouts": 0}
SEARCHES: Mapping[str, Settings] = {
    "2 agents, 3 rounds, any fault": Settings(agents=2, faults=1),
    "3 agents, 3 rounds, any fault, slow arithmetic": Settings(faults=1, computes_at_once=False),
    "3 agents, 3 rounds, any fault, 1 round ahead of the disk": Settings(faults=1, inflight_rounds=1),
    "2 agents, 4 rounds, any 2 faults": Settings(agents=2, rounds=4),
    "3 agents, 3 rounds, any 2 faults": Settings(),
    "2 agents, 1 behind a relay, 2 rounds, any fault": Settings(agents=2, relayed=1, rounds=2, faults=1),
    "2 agents, 1 behind a relay, 3 rounds, any 2 stops": Settings(agents=2, relayed=1, **_STOPS),
    "2 agents behind a relay, 3 rounds, any fault": Settings(agents=2, relayed=2, faults=1),
    "2 agents behind a relay, 3 rounds, a stop of the relay and one of the coordinator": Settings(
        agents=2, relayed=2, coordinator_stops=1, relay_stops=1, **_STOPS
    ),
    "3 agents, 2 behind a relay, 2 rounds, any fault": Settings(relayed=2, rounds=2, faults=1),
    "2 agents, 2 rounds, a quorum of 1, any fault": Settings(agents=2, rounds=2, quorum=1, faults=1),
    "2 agents, 3 rounds, a quorum of 1, any fault, stale gradients": Settings(
        agents=2, quorum=1, max_staleness=1, faults=1
    ),
    "3 agents, 3 rounds, a quorum of 2, any fault": Settings(quorum=2, faults=1),
    "2 agents, 2 rounds, a quorum of 1, any 2 faults": Settings(agents=2, rounds=2, quorum=1),
}
_QUICK = (1, 6, 11)
_SIMULATED: Mapping[str, tuple[Settings, int]] = {
    "3 agents": (Settings(faults=1, computes_at_once=False), 100),
    "2 agents behind a relay": (
        Settings(agents=2, relayed=2, rounds=2, faults=1, computes_at_once=False),
        200,
    ),
}
_QUICKLY_SIMULATED: Mapping[str, tuple[Settings, int]] = {
    "an agent behind a relay": (Settings(agents=1, relayed=1, rounds=2, faults=1, computes_at_once=False), 20),
}
_MOST_SHOWN = 3


def main() -> int:
    """1 if something does not hold, or a guard is removed and nothing is found."""
    parser = argparse.ArgumentParser(prog="make model", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest searches, and some of the guards")
    numbers = f"1 to {len(SEARCHES)}, and {len(SEARCHES) + 1} for simulated runs; 0 for the guards"
    parser.add_argument("--only", help=f"numbers of searches, separated by commas: {numbers}")
    options = parser.parse_args()
    only = set(_QUICK) if options.quick else set(range(1, len(SEARCHES) + 2))
    if options.only:
        only = {int(each) for each in options.only.split(",")}
    begun = time.process_time()
    good = [
        _search(name, settings) for number, (name, settings) in enumerate(SEARCHES.items(), 1) if number in only
    ]
    if options.quick or not options.only or 0 in only:
        good += [_without(guard) for guard in GUARDS if guard.is_quick or not options.quick]
    if options.quick or len(SEARCHES) + 1 in only:
        runs = _QUICKLY_SIMULATED if options.quick else _SIMULATED
        good += [_simulated(name, settings, seeds) for name, (settings, seeds) in runs.items()]
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


def _simulated(name: str, settings: Settings, seeds: int) -> bool:
    search = Search(settings)
    search.run()
    count, found = strangers(search, range(seeds))
    print(f"{name}: {count:,} states of {seeds} simulated runs, {len(found)} of them not found by the search")
    print("".join(f"  {each}\n" for each in found[:_MOST_SHOWN]), end="", flush=True)
    return bool(count) and not found


def _say(found: Found) -> None:
    if found.violation:
        print(f"VIOLATION: {found.violation}, after:")
        print("".join(f"  {number:3} {label}\n" for number, label in enumerate(found.path, 1)))


if __name__ == "__main__":
    sys.exit(main())
