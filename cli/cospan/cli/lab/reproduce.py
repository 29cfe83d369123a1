"""`cospan reproduce`: the numbers, verdict and picture of an experiment of docs/experiments."""

import json as json_text
from dataclasses import replace
from pathlib import Path

from cospan.cli.lab.compare import progress_lines
from cospan.cli.processes.this_process import claim_stdout, use_one_blas_thread
from cospan.cli.run_folder.layout import check_free, make_run_folder, point_to_newest_of
from cospan.cli.settings.extras import require
from cospan.experiments.experiment import DEEP, MODULES, load
from cospan.experiments.over_network import networked_notes
from cospan.experiments.reproduce import Reproduction, document, read_page, reproduce, update_page, write
from cospan.experiments.runner import cores


def reproduce_here(
    name: str | None,
    output: Path | None,
    pages: Path | None,
    *,
    tiny: bool,
    in_process: bool,
    json: bool,
    quiet: bool,
) -> int:
    """Runs an experiment, or lists them; returns 1 if a claim does not hold.

    Raises:
        CospanError: there is no such experiment, or its runs cannot begin.
    """
    if name is None:
        print("\n".join(f"{known:<26}{load(known)[0].title}" for known in MODULES))
        return 0
    data = claim_stdout() if json else None
    plan, experiment = load(name)
    require("cospan reproduce", ("scipy", "matplotlib"), "study")
    if name in DEEP:
        require(f"cospan reproduce {name}", ("jax", "optax"), "deep")
    if name == "privacy":
        require(f"cospan reproduce {name}", ("dp_accounting",), "dp")
    if pages is not None:
        read_page(pages, name)
    if output is not None:
        check_free(output)
    use_one_blas_thread()
    plan = plan.made_tiny() if tiny else plan
    say = progress_lines(quiet=quiet)
    found = reproduce(name, plan, experiment, cores(), say)
    if not in_process:
        found = replace(found, notes=networked_notes(plan, found.results, say))
    folder = make_run_folder(output, workload=name)
    write(found, folder.path, experiment)
    point_to_newest_of(folder)
    folder.release()
    if pages is not None:
        update_page(found, experiment, pages)
    if data is not None:
        print(json_text.dumps(document(found), ensure_ascii=False, allow_nan=False), file=data, flush=True)
    else:
        print("\n".join((*_lines(found), str(folder.path))))
    return int(any(finding.holds is False for finding in found.outcome.findings) and not tiny)


def _lines(found: Reproduction) -> list[str]:
    marks = {True: "holds", False: "does not hold", None: ""}
    lines = [found.plan.title, ""]
    lines += [f"{marks[finding.holds]:<15}{finding.text}" for finding in found.outcome.findings]
    lines += [f"{'':<15}{note}" for note in found.notes]
    return [*lines, ""]
