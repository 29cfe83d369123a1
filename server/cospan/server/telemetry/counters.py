"""What has happened in a run since this process began: numbers that only grow, kept as rounds close.

A round costs some additions, whatever its agents; a message costs nothing here. Whoever reads does so from another
thread: every number is right by itself, and they need not be of one moment.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from cospan.server.machine.events import Note, ReportRound
from cospan.wire.messages import RoundReport

ROUND_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the classes that the durations of rounds are counted in, in seconds."""


@runtime_checkable
class CounterSource(Protocol):
    """What tells of a run's events: a coordinator's engine, or a relay's."""

    on_note: list[Callable[[Note], None]]


class Counters:
    """Counters of a run; written on the event loop alone."""

    def __init__(self) -> None:
        self.rounds = 0
        """How many have closed."""
        self.seconds = 0.0
        """How long these took in all."""
        self.by_duration = [0] * (len(ROUND_SECONDS) + 1)
        """How many took at most `ROUND_SECONDS[i]` and longer than the bound before; last, how many took longer."""
        self.contributions = 0
        """Gradients of agents in them."""
        self.absences = 0
        """Agents that a round closed without, one for each round."""
        self.outliers = 0
        """Gradients that were far from the others."""
        self.newest: RoundReport | None = None
        """What was told of the round that closed last."""
        self.notes: dict[str, int] = {}
        """How many agents a note of each kind was of."""

    def listen(self, engine: CounterSource) -> None:
        """Counters from now on what an engine tells."""
        engine.on_note.append(self.note)
        on_round = getattr(engine, "on_round", None)  # a relay's rounds are its coordinator's to tell of
        if on_round is not None:
            on_round.append(self.round)

    def round(self, command: ReportRound) -> None:
        """A round has closed."""
        report = command.report
        self.rounds += 1
        self.seconds += report.seconds
        self.by_duration[bisect_left(ROUND_SECONDS, report.seconds)] += 1
        self.contributions += report.contributors
        self.absences += len(report.absent_agent_ids)
        self.outliers += len(report.outlier_agent_ids)
        self.newest = report

    def note(self, note: Note) -> None:
        """Something happened to the fleet."""
        self.notes[note.kind] = self.notes.get(note.kind, 0) + len(note.agent_ids)
