"""`cospan compare`: the joint method and its baselines on the same transitions: a table, plots, numbers."""

import json as json_text
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cospan.cli.output.table import table
from cospan.cli.processes.this_process import claim_stdout, use_one_blas_thread
from cospan.cli.run_folder.layout import (
    COMPARISON,
    RunFolder,
    check_free,
    make_run_folder,
    point_to_newest_of,
    write_text,
)
from cospan.cli.settings.extras import require
from cospan.cli.settings.run_specification import plan_with_workload
from cospan.cli.settings.run_warnings import advise, of_features, of_rank
from cospan.core.specification import RunSpecification
from cospan.experiments.comparison import Summary, document, methods_of_run, summaries, worse_than_alone
from cospan.experiments.plots.comparison import draw_comparison
from cospan.experiments.runner import WHOLE_FLEET, Point, Task, cores, points_csv, points_of, run_all
from cospan.wire.console import say
from cospan.wire.errors import InvalidValueError

_ROUNDS = 300
_JUDGED_BY_DATA = [
    "the true values are not known: errors are on as many further steps of each site, simulated with draws of "
    "their own; noise may bring one below 0, and decide where two are close"
]


def compare_here(
    workload: str,
    seeds: int,
    output: Path | None,
    flags: Mapping[str, Any],
    config: Path | None,
    *,
    json: bool,
    quiet: bool,
) -> int:
    """Compares in this process.

    Raises:
        CospanError: the comparison cannot begin, or the workload broke its contract; nothing is written.
    """
    data = claim_stdout() if json else None
    require("cospan compare", ("scipy", "matplotlib"), "study")
    plan = plan_with_workload(flags, config, reference=workload, spec_file=None, rounds=_ROUNDS)
    plan.close()  # each run makes its own sites
    spec = plan.specification
    assert plan.workload is not None
    if spec.rounds == 0:
        raise InvalidValueError("rounds is 0; a comparison has an end, so it must be 1 or more")
    if output is not None:
        check_free(output)
    use_one_blas_thread()
    assert plan.site is not None
    advise([*of_rank(spec), *of_features(spec, plan.site)])
    numbers = range(spec.seed, spec.seed + seeds)
    tasks = [
        Task(
            seed=seed,
            workload=spec.workload,
            methods=methods_of_run(spec),
            agents=spec.agents,
            rounds=spec.rounds,
            rank=spec.rank,
            steps_per_round=spec.method.steps_per_round,
            each_agent=True,
            held_out=True,
        )
        for seed in numbers
    ]
    measured = points_of(run_all(tasks, cores(), progress_lines(quiet=quiet)))
    sites = worse_than_alone(measured)
    points = [point for point in measured if point.agent == WHOLE_FLEET]
    found = summaries(points)
    held_out = plan.site.reference is None
    values = document(spec, numbers, found, sites, held_out=held_out)
    folder = make_run_folder(output, workload=f"compare-{plan.workload.name or spec.workload}")
    _write(folder, spec, values, points, found)
    point_to_newest_of(folder)
    folder.release()
    if data is not None:
        print(json_text.dumps(values, allow_nan=False), file=data, flush=True)
    else:
        print("\n".join([*_lines(spec, seeds, found, sites), *_JUDGED_BY_DATA * held_out]))
        print(folder.path)
    return 0


def progress_lines(*, quiet: bool) -> Callable[[str], None]:
    """Prints lines of progress on standard error, or drops them."""
    return (lambda _: None) if quiet else say


def _write(
    folder: RunFolder,
    spec: RunSpecification,
    values: Mapping[str, Any],
    points: Sequence[Point],
    found: Sequence[Summary],
) -> None:
    folder.write_spec(spec)
    write_text(folder.path / "comparison.csv", points_csv(points))
    text = json_text.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder.path / COMPARISON, f"{text}\n")
    try:
        draw_comparison(folder.path, spec, points, found)
    except Exception as failure:  # the numbers are written; a picture is optional
        say(f"cospan: no picture: drawing failed with {type(failure).__name__}: {failure}")


def _lines(spec: RunSpecification, seeds: int, found: Sequence[Summary], sites: tuple[int, int]) -> list[str]:
    rows = [
        (
            summary.method,
            f"{summary.value_error:.4g}",
            "" if summary.low is None else f"{summary.low:.4g} to {summary.high:.4g}",
            f"{summary.ratio:.3g}",
            f"{summary.bytes_per_round:,.0f}",
        )
        for summary in found
    ]
    header = ("method", "value error", "95 % of the mean", "times best alone", "bytes a round")
    runs = "1 seed" if seeds == 1 else f"mean over {seeds} seeds"
    steps, (worse, compared) = spec.rounds * spec.method.steps_per_round, sites
    over = "" if seeds == 1 else f", over {seeds} seeds"
    return [
        f"{spec.workload}: {spec.agents} agents, {steps:,} steps each; median over agents, {runs}",
        "",
        *table(header, rows, numbers=(1, 3, 4)),
        "",
        f"joint: {worse:,} of {compared:,} sites worse than alone (ratio above 1{over})",
    ]
