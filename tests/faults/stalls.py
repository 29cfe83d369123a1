"""How long two stored rounds may lie apart in a run whose coordinator is killed, on a machine as busy as it is.

What a restart needs grows with the load of the machine, and only a restart measured on the same machine in the
same minute says by how much. So the measure is the time in which starting coordinators *ran or waited for a
processor*, from the start of the process to the line that says that it listens. A coordinator that sleeps, or waits
for anything but a processor, is allowed nothing more for it, and neither is one that computes for long.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.evidence import StoredRound

QUIET_STALL = 5.0
"""Seconds; more is not allowed where coordinators start as fast as on a quiet machine."""
QUIET_START = 0.8
"""Seconds; a quiet machine takes 0.5 to 0.7."""
RETURN_SECONDS = 1.5
"""The part that does not grow with load: the pause of an agent between two attempts, 0.25 s at most, once more
where an attempt fails, and a disk that is slow for a second."""
STARTS = 3.0
"""The part that does: the start; agents that come back, send again and learn; and as much again, for load that
comes in bursts. In the median a restart takes 1.0 s, of which 0.6 s are the start."""
_SAME_MINUTE = 60.0
_MOST_RAN = 1.0
"""Seconds of CPU of a start that count, where 0.55 are usual: more is a slower program, and no busier machine."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long the main thread of a process has run, and has waited for a processor, in seconds."""

    ran: float
    waited: float

    @property
    def counted(self) -> float:
        """What of it the machine's load explains."""
        return min(self.ran, _MOST_RAN) + self.waited


def schedule_of(pid: int) -> Schedule | None:
    """As Linux counts it; None where the process has ended, or the system does not say."""
    try:
        ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return Schedule(int(ran) / 1e9, int(waited) / 1e9)


@dataclass(frozen=True, slots=True)
class Start:
    """One life of a coordinator.

    Attributes:
        started: when the process was started, in seconds since 1970.
        listened: when it said that it listens; None where it was killed before.
        ended: when it ended.
        schedule: of its start: until it listened, or was killed before that. None where it is not known.
    """

    started: float
    listened: float | None
    ended: float
    schedule: Schedule | None

    @property
    def seconds(self) -> float:
        """Of the start that the machine's load explains; 0 where that is not known."""
        if self.schedule is None:
            return 0.0
        until = self.ended if self.listened is None else self.listened
        return min(until - self.started, self.schedule.counted)

    @property
    def lost(self) -> float:
        """Seconds that a kill in a stall has cost: those of the start, and of the return that was cut off."""
        after = 0.0 if self.listened is None else min(self.ended - self.listened, RETURN_SECONDS)
        return self.seconds + after


@dataclass(frozen=True, slots=True)
class Stall:
    """The time between two stored rounds in a row.

    Attributes:
        round: the later one.
        seconds: between them.
        start: seconds of the slowest start beside it, within a minute; 0 where none was measured.
        allowed: seconds.
        lives: what ran in it, for people: seconds from the beginning of the stall.
    """

    round: int
    seconds: float
    start: float
    allowed: float
    lives: str = ""

    @property
    def is_too_long(self) -> bool:
        """Whether something else than the machine has held up the run."""
        return self.seconds >= self.allowed

    def __str__(self) -> str:
        """With the start beside it."""
        measured = "no start measured beside it"
        if self.start:
            measured = f"{self.seconds / self.start:.1f} times the slowest start beside it, {self.start:.2f} s"
        return f"{self.seconds:.2f} s (round {self.round}), {measured}; allowed {self.allowed:.2f} s"


def judged(rounds: Sequence[StoredRound], starts: Sequence[Start]) -> list[Stall]:
    """Every pair of stored rounds, held against the starts of the coordinator in the same minute."""
    return [_judged(before, after, starts) for before, after in itertools.pairwise(rounds)]


def _judged(before: StoredRound, after: StoredRound, starts: Sequence[Start]) -> Stall:
    begin, end = before.stored, after.stored
    beside = [
        start.seconds
        for start in starts
        if start.listened is not None and begin - _SAME_MINUTE <= start.started <= end + _SAME_MINUTE
    ]
    lost = [start.lost for start in starts if begin <= start.started and start.ended <= end]
    within = [start for start in starts if start.ended >= begin and start.started <= end]
    slowest = max(beside, default=0.0)
    allowed = RETURN_SECONDS + STARTS * slowest + sum(lost) + _without(starts, begin, end)
    if slowest <= QUIET_START:
        allowed = QUIET_STALL if slowest == 0.0 else min(QUIET_STALL, allowed)
    return Stall(after.round, end - begin, slowest, allowed, "; ".join(_told(start, begin) for start in within))


def _without(starts: Sequence[Start], begin: float, end: float) -> float:
    """Seconds of a stall between an end and the next start: those belong to the supervisor."""
    ordered = sorted(starts, key=lambda start: start.started)
    gaps = ((before.ended, after.started) for before, after in itertools.pairwise(ordered))
    return sum(max(0.0, min(up, end) - max(down, begin)) for down, up in gaps)


def _told(start: Start, begin: float) -> str:
    listened = "never" if start.listened is None else f"{start.listened - begin:.2f}"
    ran = "?" if start.schedule is None else f"{start.schedule.ran:.2f} + {start.schedule.waited:.2f}"
    return f"started {start.started - begin:.2f} ({ran}), listened {listened}, ended {start.ended - begin:.2f}"
