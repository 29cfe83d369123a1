"""`cospan reproduce`: the numbers, verdict and picture of an experiment of docs/experiments."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from cospan.cli.lab.compare import say_on_stderr
from cospan.cli.processes.this_process import claim_stdout, use_one_blas_thread
from cospan.cli.run_folder.layout import check_free, make_run_folder, point_to_newest_of
from cospan.cli.settings.extras import require
from cospan.experiments.experiment import MODULES, load
from cospan.experiments.over_network import networked_notes
from cospan.experiments.reproduce import Reproduction, document, read_page, reproduce, update_page, write
from cospan.experiments.runner import cores


@dataclass(frozen=True, slots=True)
class ReproduceOptions:
    """Options of `cospan reproduce`."""

    name: str | None
    output: Path | None
    pages: Path | None
    tiny: bool = False
    in_process: bool = False
    json: bool = False
    quiet: bool = False


def reproduce_here(chosen: ReproduceOptions) -> int:
    """Runs an experiment, or lists them; returns 1 if a claim does not hold.

    Raises:
        CospanError: there is no such experiment, or its runs cannot begin.
    """
    if chosen.name is None:
        print("\n".join(f"{name:<26}{load(name)[0].title}" for name in MODULES))
        return 0
    data = claim_stdout() if chosen.json else None
    plan, experiment = load(chosen.name)
    require("cospan reproduce", ("scipy", "matplotlib"), "study")
    if chosen.pages is not None:
        read_page(chosen.pages, chosen.name)
    if chosen.output is not None:
        check_free(chosen.output)
    use_one_blas_thread()
    plan = plan.made_tiny() if chosen.tiny else plan
    say = (lambda _: None) if chosen.quiet else say_on_stderr
    found = reproduce(chosen.name, plan, experiment, cores(), say)
    if not chosen.in_process:
        found = replace(found, notes=networked_notes(plan, found.results, say))
    folder = make_run_folder(chosen.output, workload=chosen.name)
    write(found, folder.path, experiment)
    point_to_newest_of(folder)
    folder.release()
    if chosen.pages is not None:
        update_page(found, experiment, chosen.pages)
    if data is not None:
        print(json.dumps(document(found), ensure_ascii=False, allow_nan=False), file=data, flush=True)
    else:
        print("\n".join((*_lines(found), str(folder.path))))
    return int(any(finding.holds is False for finding in found.outcome.findings) and not chosen.tiny)


def _lines(found: Reproduction) -> list[str]:
    marks = {True: "holds", False: "does not hold", None: ""}
    lines = [found.plan.title, ""]
    lines += [f"{marks[finding.holds]:<15}{finding.text}" for finding in found.outcome.findings]
    lines += [f"{'':<15}{note}" for note in found.notes]
    return [*lines, ""]
