"""Findings on the logs of a fleet."""

from pathlib import Path

from cospan.cli.diagnostics.findings import Finding, Grade, good
from cospan.client.logs.check import Severity
from cospan.client.logs.log_workload import log_fleet


def of_logs(logs: str | None, mapping: Path) -> list[Finding]:
    """The findings on the logs of a fleet, for `cospan doctor`."""
    fleet = log_fleet(mapping, logs or "")
    found = []
    for report in fleet.reports:
        if report.counts.rows and report.is_sound:
            found.append(good(report.site, report.line.partition(": ")[2]))
        grades = {Severity.NOTE: Grade.NOTE, Severity.PROBLEM: Grade.BAD}
        found += [Finding(report.site, grades[each.severity], each.found, each.remedy) for each in report.findings]
    return found
