"""Findings on the logs of a fleet."""

import tomllib
from pathlib import Path

from cospan.cli.diagnostics.findings import Finding, Grade, good
from cospan.client.logs.check import Severity
from cospan.client.logs.guess import GivenNames, guessed_mapping
from cospan.client.logs.log_workload import LogFleet, log_fleet
from cospan.client.logs.mapping import mapping_of
from cospan.client.logs.tables.sites import tables_of


def of_logs(logs: str | None, mapping: Path | None, columns: GivenNames | None) -> list[Finding]:
    """The findings on the logs of a fleet, for `cospan doctor`; without a mapping by what is said of columns."""
    if mapping is not None:
        fleet = log_fleet(mapping, logs or "")
    else:
        tables = tables_of(logs or "")
        text = guessed_mapping(tables, columns or GivenNames(), data=logs or "", remarks=False)
        fleet = LogFleet(mapping_of(tomllib.loads(text)), tables)
    found = []
    for report in fleet.reports:
        if report.counts.rows and report.is_sound:
            found.append(good(report.site, report.line.partition(": ")[2]))
        grades = {Severity.NOTE: Grade.NOTE, Severity.PROBLEM: Grade.BAD}
        found += [Finding(report.site, grades[each.severity], each.found, each.remedy) for each in report.findings]
    return found
