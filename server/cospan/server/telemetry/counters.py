"""Counters of a run since this process began.

A round costs a few additions whatever its agents, and a message nothing. Other threads may read them: each value is
consistent by itself, but two may be of different moments.
"""

from bisect import bisect_left

from cospan.server.machine.events import Note, ReportRound
from cospan.server.runtime.agent_engine import AgentEngine
from cospan.wire.messages import RoundReport

ROUND_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram's buckets for round durations, in seconds."""


class Counters:
    """Written on the event loop only."""

    def __init__(self) -> None:
        self.rounds = 0
        """Closed rounds."""
        self.seconds = 0.0
        """Their total duration."""
        self.by_duration = [0] * (len(ROUND_SECONDS) + 1)
        """Rounds per bucket: at most `ROUND_SECONDS[i]` and above the bound before; the last has no bound."""
        self.contributions = 0
        """Gradients of agents in them."""
        self.missed_contributions = 0
        """Agents that were present and not counted, once per round."""
        self.outliers = 0
        """Gradients that were outliers."""
        self.newest: RoundReport | None = None
        """Report of the round that closed last."""
        self.notes: dict[str, int] = {}
        """Kind of note → number of agents that notes of this kind named."""

    def listen(self, engine: AgentEngine) -> None:
        """Counts the notes of an engine from now on, and its rounds; a relay's coordinator reports its rounds."""
        engine.on_note.append(self.note)
        engine.on_round.append(self.round)

    def round(self, command: ReportRound) -> None:
        """Counts a closed round."""
        report = command.report
        self.rounds += 1
        self.seconds += report.seconds
        self.by_duration[bisect_left(ROUND_SECONDS, report.seconds)] += 1
        self.contributions += report.contributors
        self.missed_contributions += len(report.absent_agent_ids)
        self.outliers += len(report.outlier_agent_ids)
        self.newest = report

    def note(self, note: Note) -> None:
        """Counts the agents of a note."""
        self.notes[note.kind] = self.notes.get(note.kind, 0) + len(note.agent_ids)
