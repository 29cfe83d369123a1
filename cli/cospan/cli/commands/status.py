"""`cospan status`: the state of a run, as text or JSON."""

import asyncio
import json as json_text
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cospan.cli.output.table import MOST_ROWS, table
from cospan.cli.processes.admin_client import fetch_run
from cospan.cli.settings.layers import load_settings
from cospan.wire.messages import AgentPhase, AgentReport, RunPhase, RunReport
from cospan.wire.notes import bound_note, waited
from cospan.wire.text import MAX_RECORD, and_more, counted, listed, printable


def show_status(flags: Mapping[str, Any], config: Path | None, *, json: bool) -> int:
    """Prints the status of a coordinator's run; the exit code.

    Raises:
        CospanError: the coordinator does not answer.
    """
    settings = load_settings(flags, config)
    report = asyncio.run(fetch_run(settings.coordinator, settings.tls))
    if json:
        print(json_text.dumps(run_document(report), indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print("\n".join(status_lines(report, time.time(), width=width)))
    return 0


def status_lines(report: RunReport, now: float | None = None, *, width: int | None = None) -> list[str]:
    """The status of a run as text.

    Args:
        report: of the coordinator.
        now: time of the report, in seconds since 1970; None for the present.
        width: characters of a line of the table; None for no bound.
    """
    spec = report.specification
    workload = spec.workload or "no workload named"
    title = f"run {report.stamp.run_id}: {workload}, d = {spec.feature_dim}, r = {spec.rank}"
    lines = [printable(title, MAX_RECORD), sentence(report, time.time() if now is None else now)]
    if spec.improve:
        lines.append(improvement_sentence(report))
    if spec.secure_sums:
        lines.append(secure_sums_sentence(report))
    if report.spent is not None:
        lines.append(f"differential privacy: {report.spent}")
    bounded = [agent.agent_id for agent in report.agents if agent.head_bounded]
    if bounded:
        lines.append(bound_note(bounded, spec.method))
    if report.agents:
        rows = [list(cells_of(agent, report).values()) for agent in report.agents[:MOST_ROWS]]
        lines += ["", *table(_COLUMNS, rows, width=width), *and_more(len(report.agents), MOST_ROWS)]
    return lines


def sentence(report: RunReport, now: float) -> str:
    """Phase, rounds and speed of a run, at a time in seconds since 1970."""
    of = f" of {report.specification.rounds}" if report.specification.rounds else ""
    rate = f"{report.rounds_per_second:.1f} rounds/s" if report.rounds_per_second else "no round has closed yet"
    return f"{doing(report, now)}; {report.stamp.round}{of} rounds done, {rate}"


def improvement_sentence(report: RunReport) -> str:
    """Where a run stands in its improvement steps, and how many agents hold a better policy than the given one."""
    spec = report.specification
    place = spec.schedule.place(report.stamp.round)
    improved = sum(agent.policy_improved for agent in report.agents)
    held = f"{improved} of {len(report.agents)} agents have told of a better policy"
    if place.step == spec.improve:
        return f"all {spec.improve} improvement steps are done, the policies held then are evaluated; {held}"
    what, of = ("trial", spec.trial_rounds) if place.is_trial else ("evaluation", spec.evaluation_rounds)
    return f"improvement step {place.step + 1} of {spec.improve}, {what}, round {place.number + 1} of {of}; {held}"


def secure_sums_sentence(report: RunReport) -> str:
    """That the coordinator receives only sums, and of how many processes now."""
    members, least = report.epoch_members, report.specification.min_cohort
    of = f"of {members} processes now" if members else "no round is open"
    return f"secure sums: the coordinator receives only sums over processes, {of}, never of fewer than {least}"


_COLUMNS = ("agent", "phase", "counted", "reconnects", "last heard", "note")
_LATE_SECONDS, _LATE_ROUNDS = 1.0, 2.0
"""An agent is late in a round that has taken both as long and as many times as long as rounds usually do."""


def doing(report: RunReport, now: float) -> str:
    """The phase of a run, at a time in seconds since 1970."""
    here = sum(agent.phase is not AgentPhase.GONE for agent in report.agents)
    seconds, spec = f"{report.phase_seconds:.1f} s", report.specification
    match report.phase:
        case RunPhase.WAITING:
            verb = "come back" if report.stamp.round else "join"
            lost = [agent for agent in report.agents if agent.phase is AgentPhase.LOST]
            known = f"; lost: {_named(lost, now)}" if lost else ""
            least = f", in {spec.min_cohort} or more processes" if spec.secure_sums else ""
            return (
                f"waiting {seconds} for agents to {verb}{least}: "
                f"{here - len(lost)} of {spec.agents} are connected{known}"
            )
        case RunPhase.COLLECTING:
            return f"round {report.stamp.round}, {_waiting(report, seconds, now)}"
        case RunPhase.CLOSING:
            return f"round {report.stamp.round}, computing the new basis since {seconds}"
        case RunPhase.DRAINING:
            return "the coordinator is shutting down; the run resumes when it is started again"
        case RunPhase.FINISHED:
            cause = report.finish_cause.value.replace("-", " ") if report.finish_cause else "no cause given"
            return f"finished {seconds} ago ({cause})"


def _waiting(report: RunReport, seconds: str, now: float) -> str:
    """The agents that hold the round up; where none does, how many gradients are there."""
    late = [agent for agent in report.agents if is_late(agent, report)]
    if late:
        return f"waiting {seconds} for {_named(late, now)}"
    taking_part = [agent for agent in report.agents if agent.phase is not AgentPhase.GONE]
    if not taking_part:
        return f"waiting {seconds} for agents to join"
    there = sum(not agent.awaited for agent in taking_part)
    return f"{there} of {len(taking_part)} gradients are in"


def is_late(agent: AgentReport, report: RunReport) -> bool:
    """Whether the open round waits for this agent: the others have answered, or rounds do not usually take as long.

    An agent that has not answered yet in a round that has only begun is on time.
    """
    if report.phase is not RunPhase.COLLECTING or not agent.awaited:
        return False
    if agent.phase is AgentPhase.LOST:
        return True
    if report.phase_seconds < _LATE_SECONDS:
        return False
    if report.rounds_per_second:
        return report.phase_seconds >= _LATE_ROUNDS / report.rounds_per_second
    return any(not other.awaited for other in report.agents if other.phase is AgentPhase.CONNECTED)


def _named(agents: Iterable[AgentReport], now: float) -> str:
    """The first few agents with the time of their last message, the longest silent first."""
    ordered = sorted(agents, key=lambda agent: -agent.seconds_since_last_message)
    return listed(
        [f"{agent.agent_id} (last seen {_clock(now - agent.seconds_since_last_message)})" for agent in ordered]
    )


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def cells_of(agent: AgentReport, report: RunReport) -> dict[str, str]:
    """An agent of a run in the tables of `status` and `watch`, by column."""
    note = ""
    if agent.phase is AgentPhase.GONE:
        note = f"gone since round {agent.gone_in_round}: {agent.gone_cause}"
    elif is_late(agent, report):
        note = "waited for"
    if agent.feed_silent_seconds is not None:
        note += f"{'; ' if note else ''}its feed is silent for {waited(agent.feed_silent_seconds)}"
    if agent.outlier_rounds:
        note += f"{'; ' if note else ''}an outlier in {counted(agent.outlier_rounds, 'round')}"
    if agent.policy_improved:
        note += f"{'; ' if note else ''}holds an improved policy"
    return {
        "agent": agent.agent_id,
        "phase": agent.phase.value,
        "counted": str(agent.rounds_counted),
        "reconnects": str(agent.reconnects),
        "last heard": f"{agent.seconds_since_last_message:.1f} s ago",
        "note": note,
    }


def run_document(report: RunReport) -> dict[str, Any]:
    """The JSON document of a run status."""
    from cospan.cli.run_folder.run_result import plain_constants

    specification = report.specification.as_dict()
    return {
        "run_id": report.stamp.run_id,
        "incarnation": report.stamp.incarnation,
        "round": report.stamp.round,
        "durable_round": report.stamp.durable_round,
        "phase": report.phase.value,
        "phase_seconds": report.phase_seconds,
        "rounds_per_second": report.rounds_per_second,
        "finish_cause": report.finish_cause.value if report.finish_cause else None,
        "agents": [_agent_document(agent) for agent in report.agents],
        "improvement": _improvement_document(report),
        "epoch_members": report.epoch_members if report.specification.secure_sums else None,
        "privacy": None if report.spent is None else report.spent.as_dict(),
        "specification": {**specification, "method": plain_constants(specification["method"])},
    }


def _improvement_document(report: RunReport) -> dict[str, object] | None:
    """Where the run stands in its improvement steps; None in a run without."""
    spec = report.specification
    if not spec.improve:
        return None
    place = spec.schedule.place(report.stamp.round)
    return {"step": place.step, "steps": spec.improve, "is_trial": place.is_trial, "round": place.number}


def _agent_document(agent: AgentReport) -> dict[str, object]:
    names = ("seconds_since_last_message", "awaited", "rounds_counted", "reconnects", "gone_in_round", "gone_cause")
    more = ("outlier_rounds", "head_bounded", "policy_improved", "feed_silent_seconds")
    values = {name: getattr(agent, name) for name in (*names, *more)}
    return {"id": agent.agent_id, "phase": agent.phase.value, **values, "gone_cause": agent.gone_cause or None}
