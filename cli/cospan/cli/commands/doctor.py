"""`cospan doctor`: checks what Cospan needs here, and names remedies of problems.

It changes nothing, and all waits are bounded by some seconds.
"""

import asyncio
import json as json_text
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cospan.cli.diagnostics.findings import Finding, Grade, finding_document, finding_lines, of_failure
from cospan.cli.diagnostics.machine import of_blas, of_folder, of_port, of_python, of_sqlite, of_versions
from cospan.cli.diagnostics.network import of_coordinator, of_proxy, of_tls
from cospan.cli.diagnostics.workload import WorkloadToCheck, of_workload
from cospan.cli.settings.layers import Settings, load_settings
from cospan.client.session.coordinator_address import CoordinatorAddress
from cospan.wire.address import DEFAULT_PORT, parse_host, parse_listening
from cospan.wire.errors import CospanError

if TYPE_CHECKING:
    from cospan.client.logs.guess import GivenNames


def examine(
    flags: Mapping[str, Any],
    config: Path | None,
    run_folder: Path,
    *,
    json: bool,
    workload: WorkloadToCheck | None = None,
    logs: "LogsToCheck | None" = None,
) -> int:
    """Runs the checks and prints the findings; 1 if there is a problem, else 0.

    Args:
        flags: of the command line.
        config: the file of settings, or None.
        run_folder: one of runs.
        json: print JSON.
        workload: to check as well.
        logs: of a fleet; with them these are checked and nothing else.

    Raises:
        InvalidValueError: a setting has a value that is not allowed.
    """
    settings = load_settings(flags, config)
    every: list[Check] = [partial(_of_logs, logs)] if logs is not None else checks(settings, run_folder)
    if workload is not None:
        every.append(lambda: of_workload(workload))
    findings = [finding for check in every for finding in _findings_of(check)]
    if json:
        print(json_text.dumps([finding_document(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        print("\n".join(finding_lines(findings)))
    return int(any(finding.grade is Grade.BAD for finding in findings))


@dataclass(frozen=True, slots=True)
class LogsToCheck:
    """Logs of a fleet, with a mapping or what is said of their columns.

    Attributes:
        data: files or folders; None for those that the mapping names.
        mapping: its file; None where there are columns.
        columns: what is said of them; None with a mapping.
    """

    data: str | None
    mapping: Path | None
    columns: "GivenNames | None" = None


def _of_logs(logs: LogsToCheck) -> Sequence[Finding]:
    from cospan.cli.diagnostics.logs import of_logs

    return of_logs(logs.data, logs.mapping, logs.columns)


Check = Callable[[], Sequence[Finding]]


def checks(settings: Settings, run_folder: Path) -> list[Check]:
    """The checks, in the order of their output; those of the coordinator where a layer of the settings names it."""
    asked = "coordinator" in settings.model_fields_set
    where = CoordinatorAddress(settings.coordinator)
    found: list[Check] = [of_python, of_versions, of_blas, of_sqlite, lambda: of_folder(run_folder)]
    port = DEFAULT_PORT if settings.port is None else settings.port
    if not asked:
        found.append(lambda: of_port(parse_host(settings.host, port), "--port"))
    if settings.metrics is not None:
        metrics = settings.metrics
        found.append(lambda: of_port(parse_listening(metrics, "metrics"), "--metrics"))
    found.append(lambda: of_tls(settings.tls, asyncio.run(where.now()) if asked else None))
    if asked:
        found.append(lambda: asyncio.run(_of_proxy(where)))
        found.append(lambda: asyncio.run(of_coordinator(settings.coordinator, settings.tls)))
    return found


async def _of_proxy(where: CoordinatorAddress) -> Sequence[Finding]:
    return await of_proxy(await where.now())


def _findings_of(check: Check) -> Sequence[Finding]:
    """The findings of a check; a failed check is a finding."""
    try:
        return check()
    except CospanError as failure:
        return [of_failure(failure.reason.lower().replace("_", " "), failure)]
