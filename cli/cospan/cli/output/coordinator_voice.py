"""What `cospan coordinator` prints: lines for people, or JSON lines for programs."""

import time
from typing import TYPE_CHECKING, TypeAlias

from cospan.cli.run_folder.run_result import RunOutcome, result_document
from cospan.cli.run_folder.stored_run import StoredRun
from cospan.server.machine.events import Note
from cospan.wire.console import say
from cospan.wire.errors import CospanError
from cospan.wire.messages import RoundReport
from cospan.wire.notes import bound_note

if TYPE_CHECKING:
    from cospan.cli.processes.this_process import JsonLines

_JSON_ROUND_SECONDS = 0.25
_PLAIN_ROUND_SECONDS = 5.0


def say_note(note: Note) -> None:
    """A note as a line for people."""
    words = (note.kind.replace("-", " "), ", ".join(note.agent_ids[:10]), note.text)
    say(f"round {note.round}: " + ": ".join(word for word in words if word), error=False)


class PlainVoice:
    """Lines for people."""

    def __init__(self) -> None:
        self._due = 0.0

    def listening(self, address: str, agents: int) -> None:
        """It can be joined: the one line that scripts may wait for."""
        say(f"cospan coordinator listens on {address}, waiting for {agents} agents", error=False)

    def metrics(self, url: str) -> None:
        """Its metrics can be scraped."""
        say(f"metrics are on {url}", error=False)

    def dashboard(self, address: str) -> None:
        """It has a dashboard."""
        say(f"dashboard: {address}", error=False)

    def resumed(self, stored: StoredRun) -> None:
        """A stored run is resumed."""
        state = stored.state
        of = f" of {state.specification.rounds}" if state.specification.rounds else ""
        say(f"resuming run {state.run_id}: {state.rounds}{of} rounds are done", error=False)

    def note(self, note: Note) -> None:
        """Something happened to the fleet."""
        say_note(note)

    def round(self, report: RoundReport) -> None:
        """A round has closed: one line every few seconds."""
        now = time.monotonic()
        if now >= self._due or report.finished:
            self._due = now + _PLAIN_ROUND_SECONDS
            say(
                f"round {report.closed_round} closed: {report.contributors} agents, "
                f"basis moved by {report.basis_movement:.3g}",
                error=False,
            )

    def finished(self, outcome: RunOutcome) -> None:
        """The run is over."""
        if outcome.bounded:
            say(bound_note(outcome.bounded, outcome.specification.method), error=False)
        say(f"finished after {outcome.rounds} rounds: {outcome.message}", error=False)

    def failed(self, failure: CospanError) -> None:
        """There is no run, or it did not end as it should; `main` says why."""


class JsonVoice:
    """JSON lines for programs; addresses have the real port, where 0 was asked for."""

    def __init__(self, lines: "JsonLines") -> None:
        self._lines, self._due = lines, 0.0

    def listening(self, address: str, agents: int) -> None:
        self._lines.emit("listening", address=address, agents=agents)

    def metrics(self, url: str) -> None:
        self._lines.emit("metrics", url=url)

    def dashboard(self, address: str) -> None:
        self._lines.emit("dashboard", address=address)

    def resumed(self, stored: StoredRun) -> None:
        self._lines.emit("resuming", run_id=stored.state.run_id, rounds=stored.state.rounds)

    def note(self, note: Note) -> None:
        """The event is the note's kind: run-started, agent-joined, agent-lost, agent-back, agent-gone, …"""
        self._lines.emit(note.kind, round=note.round, agents=list(note.agent_ids), message=note.text)

    def round(self, report: RoundReport) -> None:
        """At most four a second."""
        now = time.monotonic()
        if now >= self._due or report.finished:
            self._due = now + _JSON_ROUND_SECONDS
            self._lines.emit(
                "round",
                round=report.closed_round,
                seconds=report.seconds,
                contributors=report.contributors,
                basis_movement=report.basis_movement,
            )

    def finished(self, outcome: RunOutcome) -> None:
        """With the numbers of result.json that a coordinator knows."""
        document = result_document(outcome)
        keys = ("finish_cause", "message", "rounds", "seconds", "basis_sha256", "departures", "run_id")
        self._lines.emit("finished", **{key: document[key] for key in keys})

    def failed(self, failure: CospanError) -> None:
        """Why, and with which exit code the process ends."""
        self._lines.emit("failed", reason=failure.reason, message=str(failure), exit_code=failure.exit_code)


Voice: TypeAlias = PlainVoice | JsonVoice
"""How a coordinator reports to the user or program that started it."""
