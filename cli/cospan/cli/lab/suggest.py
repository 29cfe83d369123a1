"""`cospan features suggest`: features for a log, and whether finer ones pay."""

import math
from collections.abc import Sequence
from pathlib import Path

from cospan.cli.output.table import table
from cospan.client.logs.formula import Formula
from cospan.client.logs.held_out import FEWEST_BLOCKS
from cospan.client.logs.mapping import LogMapping, step_of, toml_text
from cospan.client.logs.suggest import Suggestion, suggest
from cospan.client.logs.table_features import ColumnFeatures, TableFeatures
from cospan.client.logs.tables.sites import table_of
from cospan.wire.console import say
from cospan.wire.errors import InvalidValueError
from cospan.wire.files.safe_files import writing_whole


def suggest_here(
    log: str,
    *,
    reward: str,
    time: str | None,
    step: str | None,
    columns: str | None,
    output: Path | None,
    force: bool,
) -> int:
    """Prints the trials and the suggested mapping, or writes it to a file; the exit code.

    Raises:
        CospanError: the log cannot be used.
    """
    if output is not None and output.exists() and not force:
        raise InvalidValueError(f"{output} exists; name another file, or add --force")
    nothing = TableFeatures((ColumnFeatures("none", "numeric", (0.0, 1.0)),))
    mapping = LogMapping(
        observation=(),
        reward=Formula.parsed(reward, "--reward"),
        features=nothing,
        time=time,
        step=None if step is None else step_of(_number(step) or step, "--step"),
    )
    found = suggest(
        mapping, table_of(log), None if columns is None else [each.strip() for each in columns.split(",")]
    )
    for line in _lines(found):
        say(line, error=False)
    text = _mapping(found, log, reward, time, step)
    if output is None:
        for line in ("", *text.splitlines()):
            say(line, error=False)
        return 0
    with writing_whole(output, durable=False) as file:
        file.write(text.encode())
    say(
        f"wrote {output}; change it as you know better, and try: cospan run --logs … --mapping {output}",
        error=False,
    )
    return 0


def _lines(found: Suggestion) -> list[str]:
    """The trials as a table, and the judgement in words."""
    learnt, chose, judged = found.transitions
    rows = [
        (each.what, str(each.features.dim), f"{each.error:.3f}", "chosen" if each is found.chosen else "")
        for each in found.trials
    ]
    return [
        f"learnt from {learnt:,} transitions, chosen by the next {chose:,}, judged by the last {judged:,}",
        *table(("features", "d", "error", ""), rows, numbers=(1, 2)),
        "error: on the rows that choose; share of the variance of the reward over "
        f"{found.horizon} {'step' if found.horizon == 1 else 'steps'} that values do not predict",
        *_judged(found),
    ]


def _judged(found: Suggestion) -> list[str]:
    """The held-out errors, and which map is suggested."""
    judgement, coarsest = found.judgement, found.trials[0]
    of_coarsest = _with_spread(judgement.coarsest, judgement.coarsest_spread)
    if found.chosen is coarsest:
        return [
            f"held-out error of {coarsest.what}: {of_coarsest}",
            f"no finer map is better on the rows that choose; suggested: {coarsest.what}",
        ]
    lines = [
        f"held-out error of {found.chosen.what}: {_with_spread(judgement.error, judgement.spread)}",
        f"held-out error of {coarsest.what}, the coarsest: {of_coarsest}",
    ]
    difference = _with_spread(judgement.gain, judgement.gain_spread)
    if found.suggested is found.chosen:
        return [*lines, f"lower by {difference}, which is beyond chance; suggested: {found.chosen.what}"]
    if judgement.blocks < FEWEST_BLOCKS:
        why = f"{judgement.blocks} blocks of rows are too few to tell them apart, {FEWEST_BLOCKS} are needed"
    elif judgement.gain <= 0.0:
        why = "the finer one's held-out error is not lower"
    else:
        why = f"lower by {difference}, which may be chance"
    return [*lines, f"no finer map is better: {why}; suggested: {coarsest.what}"]


def _number(step: str) -> float | None:
    """A step in the unit of a numeric time; None where it is a duration."""
    try:
        return float(step)
    except ValueError:
        return None


def _with_spread(value: float, spread: float) -> str:
    return f"{value:.3f}" if math.isnan(spread) else f"{value:.3f} ± {spread:.3f}"


def _mapping(found: Suggestion, log: str, reward: str, time: str | None, step: str | None) -> str:
    lines: Sequence[str] = [
        f"# Suggested by `cospan features suggest` from {log}: the same features must suit all sites.",
        "[log]",
        *([f"time = {toml_text(time)}"] if time else []),
        *([f"step = {step if _number(step) else toml_text(step)}"] if step else []),
        f"reward = {toml_text(reward)}",
        "",
        "[run]",
        "rank = 3",
        "",
        found.toml,
    ]
    return "\n".join(lines)
