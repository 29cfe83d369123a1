"""What `cospan status` prints."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from private_runs import private
from unit.cli.run_folder.test_run_result import BASIS, OUTCOME, SPEC

from cospan.cli.commands.status import run_document, status_lines
from cospan.cli.output.summary import summary_lines
from cospan.cli.run_folder.run_result import (
    AgentRow,
    read_outcome,
    result_document,
)
from cospan.client.decisions.step_decision import StepDecision
from cospan.core.decisions.paired_bound import PairedBound
from cospan.core.method import practical
from cospan.dashboard.payloads import run_of
from cospan.wire.messages import (
    AgentPhase,
    AgentReport,
    FinishCause,
    RoundReport,
    RunPhase,
    RunReport,
    Stamp,
)


def report(number: int, basis: np.ndarray | None = None) -> RoundReport:
    return RoundReport(Stamp("abc", 1, number + 1, number + 1), number, 0.5, 3, (), 0.25, 1e-16, basis)


NOW = 1_700_000_000.0


def clock(seconds_since_last_message: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(NOW - seconds_since_last_message))


def agent_report(number: int, **changes: Any) -> AgentReport:
    return replace(AgentReport(f"site-{number}", AgentPhase.CONNECTED, 0.1, False, 412, 0), **changes)


def run_report(phase: RunPhase, *agents: AgentReport, **changes: Any) -> RunReport:
    return replace(RunReport(Stamp("abc", 1, 412, 412), SPEC, phase, 3.1, agents, None, 25.3), **changes)


def test_status_names_who_is_waited_for_and_who_is_gone() -> None:
    gone = agent_report(2, phase=AgentPhase.GONE, gone_in_round=88, gone_cause="it left: no cause given")
    waiting = agent_report(1, awaited=True, seconds_since_last_message=3.1, reconnects=2)
    text = "\n".join(status_lines(run_report(RunPhase.COLLECTING, agent_report(0), waiting, gone), NOW))
    assert f"round 412, waiting 3.1 s for site-1 (last seen {clock(3.1)})" in text
    assert "25.3 rounds/s" in text
    assert "gone since round 88: it left: no cause given" in text


@pytest.mark.parametrize(
    ("seconds", "words"), [(90.4, "90 s"), (720.0, "12 min"), (12_600.0, "3.5 h"), (500_000.0, "5.8 d")]
)
def test_status_names_a_feed_that_is_silent(seconds: float, words: str) -> None:
    late = agent_report(1, awaited=True, feed_silent_seconds=seconds)
    text = "\n".join(status_lines(run_report(RunPhase.COLLECTING, agent_report(0), late), NOW))
    assert f"waited for; its feed is silent for {words}" in text


@pytest.mark.parametrize(
    ("seconds", "rate", "first_answered", "late"),
    [
        (0.4, 25.0, True, False),
        (1.5, 25.0, True, True),
        (1.5, 0.4, True, False),
        (5.5, 0.4, True, True),
        (90.0, 0.0, False, False),
        (1.5, 0.0, True, True),
    ],
    ids=[
        "just opened",
        "usually faster",
        "usually as slow",
        "slower than usual",
        "all learn",
        "others have answered",
    ],
)
def test_status_waits_for_nobody_who_is_on_time(
    seconds: float, rate: float, first_answered: bool, late: bool
) -> None:
    agents = (agent_report(0, awaited=not first_answered), agent_report(1, awaited=True))
    run = run_report(RunPhase.COLLECTING, *agents, phase_seconds=seconds, rounds_per_second=rate)
    lines = status_lines(run, NOW)
    assert ("waiting" in lines[1], lines[-1].endswith("waited for")) == (late, late)
    if not late:
        assert f"round 412, {int(first_answered)} of 2 gradients are in" in lines[1]


def test_a_lost_agent_is_waited_for_at_once() -> None:
    agents = (agent_report(0), agent_report(1, awaited=True, phase=AgentPhase.LOST))
    lines = status_lines(run_report(RunPhase.COLLECTING, *agents, phase_seconds=0.1), NOW)
    assert "waiting 0.1 s for site-1" in lines[1]


def test_status_says_who_was_an_outlier() -> None:
    waiting = agent_report(1, awaited=True, outlier_rounds=7)
    lines = status_lines(
        run_report(RunPhase.COLLECTING, agent_report(0), waiting, agent_report(2, outlier_rounds=1))
    )
    assert lines[-2].endswith("waited for; an outlier in 7 rounds")
    assert lines[-1].endswith("an outlier in 1 round")
    assert "outlier" not in lines[-3]


def test_status_and_summary_name_whose_heads_the_bound_has_cut(tmp_path: Path) -> None:
    report = run_report(RunPhase.COLLECTING, agent_report(0), agent_report(1, head_bounded=True))
    assert status_lines(report)[2].startswith("the head of site-1 reached head_radius = ")
    assert [row["head_bounded"] for row in run_document(report)["agents"]] == [False, True]
    agents = [AgentRow("site-0", "", bounded_rounds=0), AgentRow("site-1", "", bounded_rounds=3)]
    outcome = replace(OUTCOME, bounded=("site-7",))
    document = result_document(outcome, agents)
    assert document["bounded_agents"] == ["site-1", "site-7"]
    assert read_outcome(result_document(outcome), SPEC, BASIS).bounded == ("site-7",)
    (line,) = [line for line in summary_lines(outcome, agents, document, tmp_path, width=None) if "bounded" in line]
    assert line.startswith("bounded: the heads of site-1, site-7 reached head_radius = ")
    free = result_document(OUTCOME, agents[:1])
    assert not any("bounded" in line for line in summary_lines(OUTCOME, agents[:1], free, tmp_path, width=None))


def test_status_and_summary_say_where_improvement_stands_and_who_holds_what(tmp_path: Path) -> None:
    steps = {"improve": 3, "evaluation_rounds": 100, "trial_rounds": 50, "rounds": 0}
    spec = replace(SPEC, method=practical(3), explore=0.1, confidence=0.9, **steps)
    agents = (agent_report(0), agent_report(1, policy_improved=True))
    report = run_report(RunPhase.COLLECTING, *agents, specification=spec)
    lines = status_lines(report)
    assert lines[2] == (
        "improvement step 3 of 3, trial, round 13 of 50; 1 of 2 agents have told of a better policy"
    )
    assert lines[-1].endswith("holds an improved policy")
    document = run_document(report)
    assert document["improvement"] == {"step": 2, "steps": 3, "is_trial": True, "round": 12}
    assert run_document(run_report(RunPhase.COLLECTING))["improvement"] is None

    taken = StepDecision(0, 1, True, "gains 2, at least 1", PairedBound(2.0, 1.0, 12), 1.0)
    kept = StepDecision(1, 1, False, "gains 0, but not surely", PairedBound(0.0, -1.0, 12), 1.0)
    rows = [AgentRow("site-0", "", decisions=()), AgentRow("site-1", "", decisions=(taken, kept))]
    outcome = replace(OUTCOME, specification=spec, departures=())
    result = result_document(outcome, rows)
    assert [row["policy"]["held_step"] for row in result["per_agent"]] == [None, 1]
    assert result["per_agent"][1]["policy"]["decisions"][1] == kept.as_dict()
    assert StepDecision.of_dict(kept.as_dict()) == kept
    told = {"improved_agents": 1, "trials": 2, "policies_taken": 1, "steps": 3}
    assert {name: result["improvement"][name] for name in told} == told
    summary = summary_lines(outcome, rows, result, tmp_path, width=None)
    assert summary[0].split()[-1] == "policy"
    assert [line.split()[-2:] for line in summary[1:3]] == [["-", "given"], ["step", "1"]]
    assert "in 3 steps, 1 of 2 trials proved a gain" in "\n".join(summary)
    untried = [AgentRow("site-0", "", decisions=())]
    untold = summary_lines(outcome, untried, result_document(outcome, untried), tmp_path, width=None)
    assert "better policy than the given one; no trial has been made" in "\n".join(untold)
    plain = [AgentRow("site-0", "")]
    assert "policy" not in "\n".join(
        summary_lines(OUTCOME, plain, result_document(OUTCOME, plain), tmp_path, width=None)
    )


def test_status_names_who_has_to_come_back() -> None:
    """After a restart of the coordinator, and where one is lost before the first round."""
    lost = agent_report(1, phase=AgentPhase.LOST, seconds_since_last_message=0.7)
    text = status_lines(run_report(RunPhase.WAITING, agent_report(0), lost), NOW)[1]
    assert f"to come back: 1 of 3 are connected; lost: site-1 (last seen {clock(0.7)})" in text


def test_status_names_only_the_first_of_many() -> None:
    many = [agent_report(number, awaited=True, seconds_since_last_message=float(number)) for number in range(9)]
    text = status_lines(run_report(RunPhase.COLLECTING, *many), NOW)[1]
    assert f"site-8 (last seen {clock(8.0)})" in text
    assert "and 4 more" in text
    assert "site-0" not in text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"phase": RunPhase.WAITING}, "waiting 3.1 s for agents to come back: 1 of 3 are connected"),
        ({"phase": RunPhase.CLOSING}, "computing the new basis"),
        ({"phase": RunPhase.FINISHED, "finish_cause": FinishCause.NO_AGENTS}, "finished 3.1 s ago (no agents)"),
        ({"phase": RunPhase.COLLECTING, "agents": ()}, "waiting 3.1 s for agents to join"),
        ({"phase": RunPhase.COLLECTING}, "round 412, 1 of 1 gradients are in"),
    ],
)
def test_status_of_every_phase(changes: dict[str, Any], says: str) -> None:
    assert says in status_lines(replace(run_report(RunPhase.WAITING, agent_report(0)), **changes))[1]


def test_status_says_how_many_processes_a_secure_sum_waits_for() -> None:
    waiting = run_report(RunPhase.WAITING, agent_report(0), specification=private())
    assert f"come back, in {private().min_cohort} or more processes: 1 of " in status_lines(waiting)[1]


def test_status_of_thousands_shows_the_first_of_them() -> None:
    lines = status_lines(run_report(RunPhase.COLLECTING, *(agent_report(number) for number in range(1100))))
    assert lines[-1] == "… and 1,000 more"
    assert len(lines) < 110


@pytest.mark.parametrize(
    ("phase", "incarnation", "sent"),
    [(RunPhase.WAITING, 1, 4), (RunPhase.COLLECTING, 1, 5), (RunPhase.CLOSING, 1, 5), (RunPhase.COLLECTING, 3, 7)],
)
def test_status_says_what_is_spent_of_a_privacy_budget(phase: RunPhase, incarnation: int, sent: int) -> None:
    """Of the rounds that were opened, and one more for each restart."""
    running = run_report(phase, specification=private(), stamp=Stamp("abc", incarnation, 4, 4))
    (line,) = [each for each in status_lines(running, NOW) if each.startswith("differential privacy")]
    assert line.endswith(f" of 8 (δ 1e-5), {sent} of 10 vectors")
    privacy = run_document(running)["privacy"]
    assert (privacy["vectors_sent"], privacy["vectors"], privacy["epsilon"]) == (sent, 10, 8.0)
    assert (
        line == f"differential privacy: ε spent {privacy['epsilon_spent']:.2f} of 8 (δ 1e-5), {sent} of 10 vectors"
    )
    assert run_document(run_report(phase))["privacy"] is None
    assert run_of(running, None)["privacy"] == line.removeprefix("differential privacy: ")
    assert run_of(run_report(phase), None)["privacy"] is None


def test_summary_and_result_say_what_a_run_has_spent() -> None:
    outcome = replace(OUTCOME, specification=private(), vectors_sent=10)
    document = result_document(outcome)
    assert document["privacy"]["vectors_sent"] == 10
    assert 7.5 < document["privacy"]["epsilon_spent"] <= 8.0
    lines = summary_lines(outcome, [], document, Path("run"), width=None)
    assert [line for line in lines if "privacy" in line] == [
        f"differential privacy of each agent: ε spent {document['privacy']['epsilon_spent']:.2f} of 8 (δ 1e-5), "
        "10 of 10 vectors"
    ]
    assert result_document(read_outcome(document, private(), BASIS))["privacy"] == document["privacy"]
    assert result_document(OUTCOME)["privacy"] is None
    assert not any(
        "privacy" in line for line in summary_lines(OUTCOME, [], result_document(OUTCOME), Path("r"), width=None)
    )
