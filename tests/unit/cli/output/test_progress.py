"""Progress: the numbers, and how they are laid out."""

import io

import pytest

from cospan.cli.output import progress
from cospan.cli.output.progress import LinesView, TerminalView, choose_view, facts, folded
from cospan.cli.run_folder.progress_log import Progress

RUNNING = Progress(
    joined=25,
    agents=25,
    rounds=297,
    total=730,
    rounds_per_second=12.4,
    contributors=25,
    basis_movement=0.072,
    subspace_error=0.9992,
    value_error=0.00477,
    lstd_alone_error=0.0101,
    td_alone_error=0.0353,
)


def test_an_angle_to_the_truth_is_no_news_for_people() -> None:
    """It may be 90 degrees where the basis holds all but a thousandth of the values."""
    assert not [fact for fact in facts(RUNNING) if "subspace" in fact]


@pytest.mark.parametrize("width", [20, 33, 60, 80, 200])
def test_a_number_stays_with_its_name(width: int) -> None:
    numbers = facts(RUNNING)
    lines = folded(numbers, width)
    assert max(map(len, lines)) <= width
    assert [number for line in lines for number in line.split("  ")] == list(numbers)
    assert len(folded(numbers, 200)) == 1


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_for_terminals_that_can_draw_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(progress.sys, "stderr", _Terminal())
    assert isinstance(choose_view(quiet=False), LinesView)
    monkeypatch.setenv("TERM", "xterm")
    view = choose_view(quiet=False)
    assert isinstance(view, TerminalView)
    view.close()
    monkeypatch.setattr(progress.sys, "stderr", io.StringIO())
    assert isinstance(choose_view(quiet=False), LinesView)
