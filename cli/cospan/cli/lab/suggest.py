"""`cospan features suggest`: features for a log, and whether finer ones pay."""

from collections.abc import Sequence
from pathlib import Path

from cospan.cli.output.table import table
from cospan.client.logs.formula import Formula
from cospan.client.logs.mapping import LogMapping, step_of
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
        step=None if step is None else step_of(step, "--step"),
    )
    found = suggest(
        mapping, table_of(log), None if columns is None else [each.strip() for each in columns.split(",")]
    )
    for line in _lines(found):
        say(line, error=False)
    text = _mapping(found, log, reward, time, step)
    if output is None:
        say("", error=False)
        say(text, error=False)
        return 0
    with writing_whole(output, durable=False) as file:
        file.write(text.encode())
    say(
        f"wrote {output}; change it as you know better, and try: cospan run --logs … --mapping {output}",
        error=False,
    )
    return 0


def _lines(found: Suggestion) -> list[str]:
    """The trials as a table."""
    learnt, held = found.transitions
    rows = [
        (each.what, str(each.features.dim), f"{each.error:.3f}", "suggested" if each is found.chosen else "")
        for each in found.trials
    ]
    return [
        f"learnt from {learnt:,} transitions, judged by the {held:,} after them",
        *table(("features", "d", "error", ""), rows, numbers=(1, 2)),
        f"error: share of the variance of the reward over {found.horizon} steps that values do not predict",
    ]


def _mapping(found: Suggestion, log: str, reward: str, time: str | None, step: str | None) -> str:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines: Sequence[str] = [
        f"# Suggested by `cospan features suggest` from {log}: the same features must suit all sites.",
        "[log]",
        *([f"time = {quoted(time)}"] if time else []),
        *([f"step = {quoted(step)}"] if step else []),
        f"reward = {quoted(reward)}",
        "",
        "[run]",
        "rank = 3",
        "steps_per_round = 24",
        "",
        found.toml,
    ]
    return "\n".join(lines)
