"""Pictures of a run: they fit every terminal, and show first what holds the run up."""

from dataclasses import replace
from typing import Any

import pytest
from unit.cli.commands.test_status import NOW, agent_report, clock, run_report

from cospan.cli.output.watch_view import LinesView, Sight, frame
from cospan.wire.messages import AgentPhase, RunPhase

FLEET = (
    agent_report(0),
    agent_report(1, awaited=True, seconds_since_last_message=3.1),
    agent_report(2, phase=AgentPhase.GONE, gone_in_round=88, gone_cause="it left: " + "no cause given " * 9),
    *(agent_report(number) for number in range(3, 1000)),
)


def sight(*agents: Any, **changes: Any) -> Sight:
    report = run_report(RunPhase.COLLECTING, *(agents or FLEET))
    return replace(Sight("127.0.0.1:15051", report, NOW, tuple(0.9**k for k in range(300))), **changes)


@pytest.mark.parametrize("width", [10, 20, 40, 80, 300])
@pytest.mark.parametrize("height", [1, 2, 5, 10, 24, 100])
def test_a_frame_fits_the_terminal(width: int, height: int) -> None:
    for shown in (sight(), sight(unanswered=7.0, problem="x" * 500), Sight("h:1", None, NOW, problem="y" * 500)):
        lines = frame(shown, width=width, height=height)
        assert 0 < len(lines) <= height
        assert max(map(len, lines)) <= width


def test_a_frame_names_first_who_holds_the_run_up() -> None:
    lines = frame(sight(), width=100, height=24)
    assert lines[1].startswith(f"round 412, waiting 3.1 s for site-1 (last seen {clock(3.1)}); 412 of 100")
    assert lines[2].startswith("basis moved █")
    first = lines[lines.index("") + 2]
    assert first.split()[:2] == ["site-1", "connected"]
    assert lines[-1] == f"… and {1000 - (24 - 6):,} more"
    assert len(lines) == 24


def test_a_coordinator_that_is_away_is_said_to_be() -> None:
    lines = frame(sight(unanswered=7.4, problem="no answer"), width=200, height=24)
    assert lines[1] == "no answer for 7 s, it stood at round 412: no answer"


def test_the_end_is_said_with_all_its_rounds() -> None:
    assert frame(sight(ended_after=500), width=200, height=24)[1] == "the run is over; 500 of 100 rounds done"


def test_in_pipes_a_line_comes_every_few_seconds_and_at_every_change(capsys: pytest.CaptureFixture[str]) -> None:
    view = LinesView()
    for seconds in (0.0, 1.0, 2.0, 5.0, 6.0):
        view.show(sight(now=NOW + seconds))
    view.show(sight(now=NOW + 6.5, unanswered=1.0, problem="no answer"))
    view.close(sight(now=NOW + 7.0, ended_after=413))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [clock(-seconds) for seconds in (0.0, 5.0, 6.5, 7.0)]
    assert lines[2].endswith("no answer")
    assert "the run is over; 413 of 100 rounds done" in lines[3]


def test_watch_and_status_describe_an_agent_alike() -> None:
    agents = [agent_report(0, outlier_rounds=1), agent_report(1, awaited=True)]
    lines = frame(sight(*agents), width=200, height=24)
    waiting, outlier = lines[-2:]
    assert lines[-3].split() == ["agent", "phase", "last", "heard", "counted", "reconnects", "note"]
    assert waiting.endswith("waited for")
    assert outlier.endswith("an outlier in 1 round")
