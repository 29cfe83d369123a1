"""What `cospan watch` shows: a picture that fits the terminal, lines in pipes, JSON lines for programs."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cospan.cli.commands.status import cells_of, doing, is_late, run_document, sentence
from cospan.cli.output.colours import is_able
from cospan.cli.output.sparkline import ASCII, BLOCKS, sparkline
from cospan.cli.output.table import table
from cospan.wire.messages import AgentPhase, AgentReport, RunPhase, RunReport
from cospan.wire.text import and_more

if TYPE_CHECKING:
    from cospan.cli.processes.this_process import JsonLines

_LINE_SECONDS = 5.0
_NARROW = 60
"""On fewer columns the table has but the most telling ones."""
_ORDER = {AgentPhase.LOST: 1, AgentPhase.CONNECTED: 2, AgentPhase.GONE: 3}


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of a run at one moment.

    Attributes:
        address: of the coordinator.
        report: what it has last said; None before it has answered.
        now: seconds since 1970.
        movements: of the basis, in the newest rounds.
        unanswered: for how long it has not answered, in seconds; 0 if it does.
        problem: why not.
        ended_after: of a run that is over, how many rounds it had; else None.
    """

    address: str
    report: RunReport | None
    now: float
    movements: Sequence[float] = ()
    unanswered: float = 0.0
    problem: str = ""
    ended_after: int | None = None


def choose_watch_view(lines: "JsonLines | None") -> "WatchView":
    """What suits standard output."""
    if lines is not None:
        return JsonView(lines)
    if is_able(sys.stdout, os.environ):
        return FrameView()
    return LinesView()


# A frame --------------------------------------------------------------------------------------------------------


def frame(sight: Sight, *, width: int, height: int, bars: str = BLOCKS) -> list[str]:
    """The lines of one picture: none wider than `width`, and no more than `height`."""
    report = sight.report
    if report is None:
        head = [f"cospan watch {sight.address}", sight.problem or "waiting for the coordinator's answer"]
        return [_cut(line, width) for line in head][:height]
    head = [f"run {report.stamp.run_id}: {report.specification.workload or sight.address}"]
    head += _folded(sight, report, width)
    if sight.movements:
        newest = f"{sight.movements[-1]:.2e}"
        label = "basis moved " if width >= _NARROW else ""
        chart = sparkline(sight.movements, width - len(label) - len(newest) - 1, bars=bars)
        head.append(f"{label}{chart} {newest}")
    lines = [_cut(line, width) for line in head]
    return [*lines, *_agents(report, width=width, height=height - len(lines))][:height]


def _folded(sight: Sight, report: RunReport, width: int) -> list[str]:
    """The run in words, on as many lines as they need."""
    import textwrap

    if sight.unanswered:
        text = f"no answer for {sight.unanswered:.0f} s, it stood at round {report.stamp.round}: {sight.problem}"
    else:
        text = _words(sight, report)
    return textwrap.wrap(text, max(width, 10), break_on_hyphens=False) or [""]


def _words(sight: Sight, report: RunReport) -> str:
    """Where the run stands."""
    if sight.ended_after is None or report.phase is RunPhase.FINISHED:
        return sentence(report, sight.now)
    of = f" of {report.specification.rounds}" if report.specification.rounds else ""
    return f"the run is over; {sight.ended_after}{of} rounds done"


def _agents(report: RunReport, *, width: int, height: int) -> list[str]:
    """As many agents as there is room for, those first that hold the run up."""
    if height < 3 or not report.agents:
        return []
    room = height - 2
    ordered = sorted(report.agents, key=lambda agent: _urgency(agent, report))
    shown = ordered[:room] if len(ordered) <= room else ordered[: room - 1]
    columns = ("agent", "phase", "last heard") if width < _NARROW else _COLUMNS
    rows = [[cells_of(agent, report)[column] for column in columns] for agent in shown]
    lines = ["", *(_cut(line, width) for line in table(columns, rows, width=width))]
    return lines + [_cut(line, width) for line in and_more(len(ordered), len(shown))]


_COLUMNS = ("agent", "phase", "last heard", "counted", "reconnects", "note")


def _urgency(agent: AgentReport, report: RunReport) -> tuple[int, float, str]:
    return 0 if is_late(agent, report) else _ORDER[agent.phase], -agent.seconds_since_last_message, agent.agent_id


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: max(width - 1, 0)]}~"


class FrameView:
    """One picture, drawn again in place; rich respects NO_COLOR, and the size of the terminal as it is."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False, soft_wrap=False)
        can_show = (self._console.encoding or "").lower().startswith("utf")
        self._bars = BLOCKS if can_show else ASCII
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()

    def show(self, sight: Sight) -> None:
        """Draws."""
        from rich.text import Text

        size = self._console.size
        # The last line is left free: a frame as high as the terminal scrolls it.
        lines = frame(sight, width=size.width, height=max(size.height - 1, 1), bars=self._bars)
        text = Text("\n".join(lines), no_wrap=True, overflow="crop")
        text.stylize("bold", 0, len(lines[0]))
        if sight.unanswered:
            text.stylize("yellow", len(lines[0]))
        self._live.update(text, refresh=True)

    def close(self, last: Sight) -> None:
        """Leaves the last picture where it is."""
        if last.report is not None:
            self.show(last)
        self._live.stop()


# Lines ----------------------------------------------------------------------------------------------------------


class LinesView:
    """A line every few seconds, and when the phase changes: for pipes and logs."""

    def __init__(self) -> None:
        self._due, self._stage = 0.0, ""

    def show(self, sight: Sight) -> None:
        """Prints where it is time to."""
        stage = "unanswered" if sight.unanswered or sight.report is None else _stage(sight.report)
        if stage == self._stage and sight.now < self._due:
            return
        self._due, self._stage = sight.now + _LINE_SECONDS, stage
        self._print(sight)

    def close(self, last: Sight) -> None:
        """The last word."""
        if last.report is not None:
            self._print(last)

    @staticmethod
    def _print(sight: Sight) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(sight.now))
        if sight.unanswered or sight.report is None:
            print(f"{clock} {sight.problem or 'waiting for an answer'}", flush=True)
            return
        moved = f", basis moved by {sight.movements[-1]:.3g}" if sight.movements else ""
        print(f"{clock} {_words(sight, sight.report)}{moved}", flush=True)


def _stage(report: RunReport) -> str:
    """What a line is worth printing for at once; rounds come and go too quickly."""
    running = report.phase.value in ("collecting", "closing")
    return "running" if running else doing(report, 0.0).partition(" ")[0]


class JsonView:
    """A JSON object for every look."""

    def __init__(self, lines: "JsonLines") -> None:
        self._lines = lines

    def show(self, sight: Sight) -> None:
        """`status`, or `unanswered`."""
        if sight.unanswered or sight.report is None:
            self._lines.emit("unanswered", seconds=sight.unanswered, message=sight.problem)
        else:
            self._emit("status", sight, sight.report)

    def close(self, last: Sight) -> None:
        """`ended`."""
        if last.report is not None:
            self._emit("ended", last, last.report)

    def _emit(self, event: str, sight: Sight, report: RunReport) -> None:
        document = run_document(report)
        movement = sight.movements[-1] if sight.movements else None
        seen = {"event": event, "basis_movement": movement, "ended_after": sight.ended_after}
        self._lines.write({**seen, **document})


WatchView: TypeAlias = FrameView | LinesView | JsonView
"""Shows a run: `show` is called about once a second, and `close` at the end."""
