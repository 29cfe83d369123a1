"""Runs and judges an experiment, and writes `results.csv`, `results.json`, `figures.md` and pictures."""

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cospan.core.statistics import known
from cospan.experiments.experiment import Experiment, ExperimentOutcome, Plan, Table
from cospan.experiments.plots.axes import import_matplotlib, save
from cospan.experiments.runner import Point, TaskResult, points_csv, points_of, run_all
from cospan.wire.errors import RunFileError

FORMAT = "cospan-experiment-1"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True, eq=False, slots=True)
class Reproduction:
    """A finished experiment.

    Attributes:
        name: of the experiment.
        plan: its spec file, or the tiny version of it.
        results: of its runs.
        outcome: findings and tables.
        minutes: wall time.
        processor_minutes: of all its processes, without further checks; on Windows of this process alone.
        notes: further checks, one sentence each.
    """

    name: str
    plan: Plan
    results: Sequence[TaskResult]
    outcome: ExperimentOutcome
    minutes: float
    processor_minutes: float
    notes: tuple[str, ...] = ()

    @property
    def points(self) -> list[Point]:
        """Of all runs."""
        return points_of(self.results)


def reproduce(
    name: str, plan: Plan, experiment: Experiment, processes: int, say: Callable[[str], None]
) -> Reproduction:
    """Runs the tasks in up to `processes` processes and judges the results."""
    start, used = time.monotonic(), _processor_seconds()
    results = run_all(experiment.tasks(plan), processes, say)
    outcome = experiment.outcome(plan, points_of(results))
    minutes, processor_minutes = (time.monotonic() - start) / 60.0, (_processor_seconds() - used) / 60.0
    return Reproduction(name, plan, results, outcome, minutes, processor_minutes)


def _processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def document(found: Reproduction) -> dict[str, Any]:
    """`results.json`."""
    return {
        "format": FORMAT,
        "experiment": found.name,
        "title": found.plan.title,
        "plan": found.plan.fingerprint,
        "seeds": found.plan.seeds,
        "minutes": round(found.minutes, 2),
        "processor_minutes": round(found.processor_minutes, 2),
        "findings": [
            {
                "name": finding.name,
                "text": finding.text,
                **{key: None if v is None else known(v) for key, v in asdict(finding.value).items()},
                "holds": finding.holds,
                "sign": finding.sign,
            }
            for finding in found.outcome.findings
        ],
        "tables": [asdict(table) for table in found.outcome.tables],
        "notes": list(found.notes),
    }


def write(found: Reproduction, folder: Path, experiment: Experiment) -> None:
    """Writes the files of a reproduction into an existing folder."""
    (folder / "results.csv").write_text(points_csv(found.points), encoding="utf-8")
    text = json.dumps(document(found), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(f"{text}\n", encoding="utf-8")
    (folder / "figures.md").write_text("\n".join(figures(found)) + "\n", encoding="utf-8")
    picture(found, experiment, folder / "picture.png")
    picture(found, experiment, folder / "picture.svg")


def picture(found: Reproduction, experiment: Experiment, path: Path) -> None:
    """Draws the experiment in the format of the path's suffix."""
    import_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": found.name}):  # the same numbers give the same file
        figure = Figure(figsize=(11.0, 4.4), dpi=130, layout="constrained")
        experiment.draw(figure, found.plan, found.points)
        figure.suptitle(found.plan.title, fontsize=10, color="0.35")
        save(figure, path)


def figures(found: Reproduction) -> list[str]:
    """The lines from `BEGIN` to `END` of the experiment's page: findings and tables in Markdown."""
    lines = [BEGIN, f"<!-- plan {found.plan.fingerprint}; written by `cospan reproduce {found.name}` -->", ""]
    for finding in found.outcome.findings:
        mark = {True: "holds: ", False: "**does not hold**: ", None: ""}[finding.holds]
        lines.append(f"- {mark}{finding.text}")
    lines += [f"- {note}" for note in found.notes]
    for table in found.outcome.tables:
        lines += ["", *([f"{table.title}:", ""] if table.title else []), *_markdown(table)]
    seeds = f"{len(found.plan.seeds)} seeds" if len(found.plan.seeds) > 1 else "one seed"
    used = found.processor_minutes  # unlike wall time, nearly the same on a machine that others use
    took = "less than a minute" if used < 1.0 else f"{used:.0f} min"
    lines += ["", f"Means over {seeds}, 95 % bootstrap intervals; {took} of processor time.", "", END]
    return lines


def _markdown(table: Table) -> list[str]:
    rows = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


_PLACE = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)


def read_page(folder: Path, name: str) -> str:
    """The page of an experiment.

    Raises:
        RunFileError: there is no such page, or it has no place for figures.
    """
    page = folder / f"{name}.md"
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as failure:
        raise RunFileError(f"{page} cannot be read: {failure.strerror or failure}") from failure
    if not _PLACE.search(text):
        raise RunFileError(f"{page} has no place for figures; it must hold the lines {BEGIN} and {END}")
    return text


def update_page(found: Reproduction, experiment: Experiment, folder: Path) -> None:
    """Replaces the figures in `<folder>/<name>.md` and the picture `<folder>/<name>.svg`.

    Raises:
        RunFileError: there is no such page, or it has no place for figures.
    """
    block = "\n".join(figures(found))
    text = _PLACE.sub(lambda _: block, read_page(folder, found.name))
    (folder / f"{found.name}.md").write_text(text, encoding="utf-8")
    picture(found, experiment, folder / f"{found.name}.svg")
