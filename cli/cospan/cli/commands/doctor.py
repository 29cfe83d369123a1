"""`cospan doctor`: looks at what Cospan needs here, and says what to do about what is not as it should be.

Nothing is changed by it, and every wait is bounded: a look at the network takes some seconds at most.
"""

import asyncio
import json as json_text
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cospan.cli.diagnostics.findings import Finding, Grade, finding_document, finding_lines, of_failure
from cospan.cli.diagnostics.machine import of_blas, of_folder, of_port, of_python, of_sqlite, of_versions
from cospan.cli.diagnostics.network import of_coordinator, of_proxy, of_tls
from cospan.cli.settings.layers import Settings, load_settings
from cospan.wire.address import parse_host, parse_listening
from cospan.wire.errors import CospanError

_DEFAULT_PORT = 50051


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """What is to be looked at, beside this installation.

    Attributes:
        coordinator: whether to ask for the coordinator of the settings.
        run_folder: where runs are kept, or are to be.
        json: whether to print JSON.
    """

    coordinator: bool
    run_folder: Path
    json: bool = False


def examine(chosen: DoctorOptions, flags: Mapping[str, Any], config: Path | None) -> int:
    """Looks, and prints what was found; 1 where there is a problem, else 0.

    Raises:
        InvalidValueError: a setting has a value that is not allowed.
    """
    settings = load_settings(flags, config)
    findings = [finding for look in looks(chosen, settings) for finding in _looked(look)]
    if chosen.json:
        print(json_text.dumps([finding_document(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        print("\n".join(finding_lines(findings)))
    return int(any(finding.grade is Grade.BAD for finding in findings))


Look = Callable[[], Sequence[Finding]]


def looks(chosen: DoctorOptions, settings: Settings) -> list[Look]:
    """What there is to look at, in the order in which it is told."""
    found: list[Look] = [of_python, of_versions, of_blas, of_sqlite, lambda: of_folder(chosen.run_folder)]
    port = _DEFAULT_PORT if settings.port is None else settings.port
    if not chosen.coordinator:
        found.append(lambda: of_port(parse_host(settings.host, port), "--port"))
    if settings.metrics is not None:
        metrics = settings.metrics
        found.append(lambda: of_port(parse_listening(metrics, "metrics"), "--metrics"))
    found.append(lambda: of_tls(settings.tls, settings.coordinator if chosen.coordinator else None))
    if chosen.coordinator:
        found.append(lambda: asyncio.run(of_proxy(settings.coordinator)))
        found.append(lambda: asyncio.run(of_coordinator(settings.coordinator, settings.tls)))
    return found


def _looked(look: Look) -> Sequence[Finding]:
    """What a look finds; one that fails is a finding itself, and the others go on."""
    try:
        return look()
    except CospanError as failure:
        return [of_failure(failure.reason.lower().replace("_", " "), failure)]
