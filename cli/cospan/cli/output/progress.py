"""Live progress on standard error: a bar on a terminal, lines every few seconds elsewhere."""

import os
import sys
import textwrap
import time
from collections.abc import Sequence

from cospan.cli.output.colours import is_able
from cospan.cli.run_folder.progress_log import Progress
from cospan.wire.console import say
from cospan.wire.text import MAX_RECORD, printable

_LINE_SECONDS = 5.0
_BAR_WIDTH = 24


class View:
    """Shows the progress of a run; this one shows only what is told."""

    def update(self, progress: Progress) -> None:
        """Shows the state of the run; called a few times a second."""

    def note(self, text: str) -> None:
        """Prints a line that stays on the screen."""

    def tell(self, text: str) -> None:
        """Prints a line that is found nowhere else, even with `--quiet`."""
        say(text)

    def close(self) -> None:
        """Ends the view."""


def choose_view(*, quiet: bool) -> View:
    """The view for standard error."""
    if quiet:
        return View()
    return TerminalView() if is_able(sys.stderr, os.environ) else LinesView()


class LinesView(View):
    """A line every few seconds, for pipes and logs."""

    def __init__(self) -> None:
        self._due, self._shown = 0.0, -2

    def update(self, progress: Progress) -> None:
        """Prints a line if it is time and there is something new."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _LINE_SECONDS
        stage = progress.rounds if progress.rounds else -progress.joined - 1
        if stage != self._shown:
            self._shown = stage
            self.note("  ".join((_stage(progress), *facts(progress))))

    note = View.tell


class TerminalView(View):
    """A bar and one line of numbers, redrawn in place; rich respects NO_COLOR."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def update(self, progress: Progress) -> None:
        """Redraws."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(
            total=progress.total or None,
            completed=progress.rounds,
            width=_BAR_WIDTH,
            style="bright_black",
            complete_style="cyan",
            finished_style="green",
            pulse_style="cyan",
        )
        line.add_row(bar, Text(_stage(progress), style="bold", no_wrap=True))
        numbers = Text("\n".join(folded(facts(progress), self._console.width)), no_wrap=True)
        self._live.update(Group(line, numbers), refresh=True)

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(printable(text, MAX_RECORD), markup=False)

    tell = note

    def close(self) -> None:
        """Removes the bar."""
        self._live.stop()


def _stage(progress: Progress) -> str:
    if not progress.rounds and progress.joined < progress.agents:
        return f"starting: {progress.joined} of {progress.agents} agents connected"
    return f"round {progress.rounds}/{progress.total}" if progress.total else f"round {progress.rounds}"


def facts(progress: Progress) -> tuple[str, ...]:
    """The known numbers, each with its name."""
    if not progress.rounds:
        return ()
    found = [f"{progress.rounds_per_second:.1f} rounds/s", f"{progress.contributors} agents"]
    numbers = (
        ("basis moved", progress.basis_movement),
        ("value error", progress.value_error),
        ("LSTD alone", progress.lstd_alone_error),
        ("TD alone", progress.td_alone_error),
    )
    found += [f"{name} {value:.3g}" for name, value in numbers if value is not None]
    left = progress.seconds_left
    return (*found, f"ETA {_clock(left)}") if left is not None else tuple(found)


def folded(numbers: Sequence[str], width: int) -> list[str]:
    """Numbers with their names on lines of at most `width` characters; a line ends between two of them."""
    glue = "\x00"  # stands for the blank between a name and its number, at which nothing breaks
    text = "  ".join(number.replace(" ", glue) for number in numbers)
    lines = textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False)
    return [line.replace(glue, " ") for line in lines]


def _clock(seconds: float) -> str:
    """[H:]MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
