"""The check of `cospan doctor --workload`: what `cospan.client.check` finds, as findings of the command."""

from collections.abc import Sequence
from dataclasses import dataclass

from cospan.cli.diagnostics.findings import Finding, Grade, good


@dataclass(frozen=True, slots=True)
class WorkloadToCheck:
    """What to check of a workload.

    Attributes:
        reference: its name, as on the command line.
        sites: how many, from site 0 on; None for the default.
        steps: to play each; None for the default.
        seed: of the run.
    """

    reference: str
    sites: int | None = None
    steps: int | None = None
    seed: int = 0


def of_workload(asked: WorkloadToCheck) -> Sequence[Finding]:
    """What is wrong with a workload.

    Raises:
        WorkloadError: there is no such workload.
        InvalidValueError: the number of sites or steps is out of range.
    """
    from cospan.client.workload_check.check import DEFAULT_SITES, DEFAULT_STEPS, check

    sites = DEFAULT_SITES if asked.sites is None else asked.sites
    steps = DEFAULT_STEPS if asked.steps is None else asked.steps
    report = check(asked.reference, sites=sites, steps=steps, seed=asked.seed)
    grades = {"problem": Grade.BAD, "warning": Grade.NOTE, "note": Grade.NOTE}
    found = [
        Finding(
            "workload",
            grades[each.severity.value],
            f"{each.where}: {each.what}" if each.where else each.what,
            each.remedy,
        )
        for each in report
    ]
    return [*found, good("workload", report.summary)] if report.ok else found
