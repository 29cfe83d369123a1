"""The summary of a run: a table of its agents, medians, who left, where everything is, and what can follow."""

import math
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cospan.cli.output.colours import can_show, coloured, is_coloured
from cospan.cli.output.table import MOST_ROWS, table
from cospan.cli.run_folder.layout import NEWEST
from cospan.cli.run_folder.run_result import AgentRow, RunOutcome, ratio_to_best
from cospan.client.workloads import BUILT_IN
from cospan.core.privacy.private_run import spent_after
from cospan.core.quality.fleet_errors import verdict as verdict_of
from cospan.core.specification import SITE_PREFIX
from cospan.wire.console import say
from cospan.wire.notes import bound_note
from cospan.wire.text import MAX_RECORD, and_more, listed, printable

_COLUMNS = ("agent", "site", "mean reward", "joint", "LSTD alone", "TD alone", "ratio", "shared", "note")
_HELD_OUT_COLUMNS = ("agent", "site", "mean reward", "joint", "LSTD alone", "mean only", "ratio", "shared", "note")
"""Of a run whose truth is unknown: errors on held-out data."""
_WELL_KNOWN = 0.02
"""More data would change little where the error is below this share of the values' variance."""
_ALIKE = "~"
"""The ratio where two errors cannot be told apart."""
_WIDE = 84
"""Characters of a line with room for a note; without it the lines below the table have the same."""
_NUMBERS = (2, 3, 4, 5, 6, 7)
_ALIGNED = 50
"""Characters of a command beside which there is room for what it does."""
BETTER, WORSE = "✓", "!"
"""Signs of a ratio below 1, where sharing pays, and above."""
_PLAIN_BETTER = "+"
_MARKED = re.compile(rf"(?:(?P<better>[{BETTER}{_PLAIN_BETTER}])|(?P<worse>{WORSE})) \d[\d.]*")


def show_summary(
    lines: Sequence[str], following: Sequence[tuple[str, str]] = (), *, width: int | None = None
) -> None:
    """Prints the lines of a summary, with colours where the terminal has them; what can follow on terminals alone.

    Args:
        lines: of `summary_lines`.
        following: commands for what comes next, and what each does. A program that reads the output finds the run
            folder at its end.
        width: characters at which sentences are folded; None where they are not.
    """
    has_colours, has_sign = is_coloured(sys.stdout, os.environ), can_show(sys.stdout, BETTER)
    table_end = lines.index("") if "" in lines else 0
    for number, line in enumerate(lines):
        text = printable(line if has_sign else line.replace(BETTER, _PLAIN_BETTER), MAX_RECORD)
        is_sentence = width is not None and table_end < number < len(lines) - 1
        folded = textwrap.wrap(text, width or 0, subsequent_indent="  ") if is_sentence and text else [text]
        for part in folded:
            shown = part
            if has_colours and part:
                shown = coloured(part, "title") if number == 0 else _MARKED.sub(_in_colour, part)
            say("", start=shown, error=False)
    if following and sys.stdout.isatty():
        longest = min(max(len(command) for command, _ in following), _ALIGNED)
        say("", start=coloured("Next:", "title") if has_colours else "Next:", error=False)
        for command, purpose in following:
            note = f"# {purpose}"
            note = coloured(note, "faint") if has_colours else note
            say("", start=f"  {command:<{longest}}  {note}", error=False)


def _in_colour(marked: re.Match[str]) -> str:
    return coloured(marked[0], "better" if marked["better"] else "worse")


def next_commands(folder: Path, workload: str, agents: Sequence[AgentRow]) -> list[tuple[str, str]]:
    """What people do with a finished run: commands, and what each does.

    Args:
        folder: of the run.
        workload: of the run.
        agents: of the run; the first one of the table is drawn.
    """
    newest = folder.parent / NEWEST
    shown = newest if newest.is_symlink() and newest.resolve() == folder.resolve() else folder
    name = shlex.quote(str(shown))
    found = [(f"cospan report {name} --output report.html", "all of it on one page")]
    if agents:
        site = min(agents, key=_worst_first).id.removeprefix(SITE_PREFIX)
        own = "" if workload in BUILT_IN else f" --workload {shlex.quote(workload)}"
        found.append((f"cospan plot {name} --site {site} --over 0{own}", "what a site has learnt"))
    return found


def summary_lines(
    outcome: RunOutcome, agents: Sequence[AgentRow], document: dict[str, Any], folder: Path, *, width: int | None
) -> list[str]:
    """The lines of the summary; the last is the path of the run folder.

    Args:
        outcome: how it ended.
        agents: every agent that was in it, those that left included.
        document: its `result.json`.
        folder: the run folder.
        width: characters of a line; None for no bound.
    """
    departed = {gone.agent_id: gone for gone in outcome.departures}
    is_known = any(agent.value_error is not None for agent in agents)
    row_of = _row if is_known else _held_out_row
    titles: tuple[str, ...] = _COLUMNS if is_known else _HELD_OUT_COLUMNS
    rows: list[tuple[str, ...]] = [
        row_of(agent, f"gone in round {departed[agent.id].round}" if agent.id in departed else "")
        for agent in sorted(agents, key=_worst_first)[:MOST_ROWS]
    ]
    if document.get("improvement") is not None:
        titles = (*titles[:-1], "policy", titles[-1])
        held = {agent.id: _held(agent) for agent in agents}
        rows = [(*row[:-1], held[row[0]], row[-1]) for row in rows]
    has_note = bool(departed) and (width is None or width >= _WIDE)
    columns = titles if has_note else titles[:-1]
    rows = [row[: len(columns)] for row in rows]
    lines = (
        [*table(columns, rows, numbers=_NUMBERS, width=width), *and_more(len(agents), MOST_ROWS)] if rows else []
    )
    warnings = [f"warning: {sentence}" for sentence in outcome.warnings]
    return [
        *lines,
        "",
        *_medians(document, agents),
        *_held_out(document),
        *_shared(document),
        *_improvement(document),
        *_privacy(outcome),
        *warnings,
        *_departures(outcome),
        *_bounded(document, outcome),
        _totals(document, outcome),
        str(folder),
    ]


def _held(agent: AgentRow) -> str:
    """Which policy an agent holds, in a word or two."""
    return "given" if agent.held_step is None else f"step {agent.held_step}"


def _improvement(document: dict[str, Any]) -> list[str]:
    """What improvement came to."""
    found = document.get("improvement")
    if found is None:
        return []
    steps = "1 step" if found["steps"] == 1 else f"{found['steps']} steps"
    trials = f"{found['policies_taken']:,} of {found['trials']:,} trials proved a gain"
    return [
        f"{found['improved_agents']:,} of {document['agents']:,} agents hold a better policy than the given one; "
        + (f"in {steps}, {trials}" if found["trials"] else "no trial has been made")
    ]


def _privacy(outcome: RunOutcome) -> list[str]:
    """What the run has cost of its privacy budget."""
    spent = spent_after(outcome.specification, outcome.vectors_sent)
    return [] if spent is None else [f"differential privacy of each agent: {spent}"]


def _worst_first(agent: AgentRow) -> float:
    """By the ratio to the best alone; agents whose ratio is unknown come last, in their own order.

    Where the truth is unknown, by the advantage over LSTD alone in standard errors.
    """
    if agent.ratio is not None:
        return -agent.ratio
    held = agent.held_out
    return math.inf if held is None else held.advantage / max(held.advantage_error, 1e-300)


def _row(agent: AgentRow, note: str) -> tuple[str, ...]:
    errors = (agent.value_error, agent.lstd_alone_error, agent.td_alone_error)
    numbers = [_number(value) for value in errors]
    return (
        agent.id,
        agent.label,
        _mean_reward(agent),
        *numbers,
        _marked(agent.ratio),
        _share(agent.shared_weight),
        note,
    )


def _marked(ratio: float | None) -> str:
    """A ratio to the best alone with its sign."""
    return "-" if ratio is None else f"{WORSE if ratio > 1.0 else BETTER} {_number(ratio)}"


def _held_out_row(agent: AgentRow, note: str) -> tuple[str, ...]:
    """Errors on held-out data: a bound where noise hides the error itself."""
    held = agent.held_out
    if held is None:
        return agent.id, agent.label, _mean_reward(agent), *("-",) * 4, _share(agent.shared_weight), note
    errors = [_bounded_error(value, held.joint_error) for value in (held.joint, held.lstd_alone)]
    ratio = _ALIKE
    if held.ratio is not None:
        mark = BETTER if held.verdict > 0 else WORSE
        ratio = f"{mark} {_bounded_error(held.ratio, held.joint_error / held.lstd_alone)}"
    shared = _share(agent.shared_weight)
    return agent.id, agent.label, _mean_reward(agent), *errors, f"{held.mean_only:.3f}", ratio, shared, note


def _bounded_error(value: float, standard_error: float) -> str:
    bound = 2.0 * standard_error
    return f"<{max(0.0, value) + bound:.2g}" if value <= bound else f"{value:.3g}"


def _mean_reward(agent: AgentRow) -> str:
    """With half the width of its 95 % interval, where that is known."""
    half = agent.mean_reward_half_width
    if half is None:
        return _number(agent.mean_reward)
    return f"{_number(agent.mean_reward)} ± {half:{'.2g' if half < 99.5 else '.0f'}}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _number(value: float | None) -> str:
    """Four digits, or a dash where nothing is known."""
    return "-" if value is None else f"{value:#.4g}"


def _medians(document: dict[str, Any], agents: Sequence[AgentRow]) -> list[str]:
    joint, alone = document["value_error"], document["baselines"]
    lstd, td = alone["lstd_alone"], alone["td_alone"]
    if not document["agents"]:
        return []
    if joint is None:
        return ["the true values are not known: errors are on held-out data, as shares of the values' variance"]
    text = f"median value error: joint {_number(joint)}"
    for name, error in (("LSTD alone", lstd), ("TD alone", td)):
        text += "" if error is None else f", {name} {_number(error)}"
    of_medians = ratio_to_best(joint, lstd, td)
    which = "the best alone" if lstd is not None and td is not None else "that"
    text += f"; {of_medians:.2f} times {which}" if of_medians is not None else ""
    lines = [text]
    if document["sites_compared"]:
        lines.append(_compared(document, agents))
    if document["held_share"] is not None:
        held = _percentage(document["held_share"])
        lines.append(f"the shared basis holds {held} of the variance of the true values (median site)")
    return lines


def _percentage(share: float) -> str:
    """With one digit; 100 % means all of it, not nearly all."""
    return "more than 99.9 %" if 0.9995 <= share < 1.0 else f"{100.0 * share:.1f} %"


def _compared(document: dict[str, Any], agents: Sequence[AgentRow]) -> str:
    """How many sites are better off with the fleet, and which are not."""
    worse, compared = document["sites_worse_than_alone"], document["sites_compared"]
    if not worse:
        return f"{BETTER} {compared:,} of {compared:,} sites better than the best alone"
    named = [
        f"{agent.id} ({agent.ratio:.2f})"
        for agent in sorted(agents, key=_worst_first)
        if agent.ratio is not None and agent.ratio > 1.0
    ]
    return f"{WORSE} {worse:,} of {compared:,} sites worse than the best alone: {listed(named)}"


def _held_out(document: dict[str, Any]) -> list[str]:
    """The fleet's errors on held-out data, and what can be said of them."""
    found = document["held_out"]
    if found is None:
        return [] if document["value_error"] is not None else ["no errors on held-out data: the run is too short"]
    alone = f", TD alone {_number(found['td_alone'])}" if found["td_alone"] is not None else ""
    within = " within equal exogenous parts" if found["within_exogenous"] else ""
    gain = f"{found['advantage']:.2g} ± {found['advantage_error']:.1g}"
    told = {1: f"joint is better than LSTD alone by {gain}", -1: f"LSTD alone is better than joint, {gain}"}
    verdict = told.get(
        _fleet_verdict(found), f"joint and LSTD alone cannot be told apart ({gain}): run more rounds or more agents"
    )
    sites, better, worse = found["sites"], found["sites_better"], found["sites_worse"]
    joint = f"{found['joint']:.3g} ± {found['joint_error']:.1g}"
    lstd = f"{found['lstd_alone']:.3g}"
    return [
        f"held-out error{within}, mean of {sites:,} sites: joint {joint}, LSTD alone {lstd}{alone}, "
        f"mean only {found['mean_only']:.3g}",
        f"{verdict}; better at {better:,} of {sites:,} sites, worse at {worse:,}, "
        f"not told apart at {sites - better - worse:,}",
        f"learnt from {found['learnt_steps']:,} steps, measured with the {found['held_out_steps']:,} after them; "
        f"{_help(document)}",
    ]


def _help(document: dict[str, Any]) -> str:
    """Whether more data or more features would help, as far as held-out data tell."""
    found, gaps = document["held_out"], document["sites_lacking_features"]
    known = max(0.0, found["joint"]) + 2.0 * found["joint_error"]
    parts = []
    if known > _WELL_KNOWN:
        parts.append(f"more data would help (errors within these features may be {known:.0%})")
    if gaps:
        tested = document["sites_tested_for_features"]
        sites = (
            f"{gaps:,} sites" if tested == len(document["per_agent"]) else f"{gaps:,} of {tested:,} tested sites"
        )
        parts.append(f"more features would help at {sites} (see the warnings)")
    return " and ".join(parts) or "neither more data nor more features would change much"


def _fleet_verdict(found: dict[str, Any]) -> int:
    return verdict_of(found["advantage"], found["advantage_error"], found["blocks"] - 1)


def _shared(document: dict[str, Any]) -> list[str]:
    """How much of the answers is the fleet's, and how much of the rank they need."""
    share, in_use = document["shared_weight"], document["rank_in_use"]
    parts = []
    if share is not None:
        parts.append(f"median shared weight: {_share(share)} (0 is own data alone, 1 the fleet's answer)")
    if in_use is not None:
        parts.append(f"rank in use: {in_use} of {document['rank']}")
    return ["; ".join(parts)] if parts else []


def _departures(outcome: RunOutcome) -> list[str]:
    shown = outcome.departures[:MOST_ROWS]
    lines = [printable(f"gone: {gone.agent_id} in round {gone.round} ({gone.cause})", MAX_RECORD) for gone in shown]
    return lines + and_more(len(outcome.departures), MOST_ROWS)


def _bounded(document: dict[str, Any], outcome: RunOutcome) -> list[str]:
    names = document["bounded_agents"]
    return [f"bounded: {bound_note(names, outcome.specification.method)}"] if names else []


def _totals(document: dict[str, Any], outcome: RunOutcome) -> str:
    spec = outcome.specification
    of = f" of {spec.rounds}" if spec.rounds and spec.rounds != outcome.rounds else ""
    rate = document["rounds_per_second"]
    speed = f" in {outcome.seconds:.1f} s ({rate:.1f} rounds/s)" if rate else ""
    digest = document["basis_sha256"]
    basis = f"; basis {digest[:16]}" if digest else ""
    void = f", {outcome.void_rounds} void" if outcome.void_rounds else ""
    return f"{outcome.rounds}{of} rounds{void}{speed}, {document['agents']} agents finished{basis}"
