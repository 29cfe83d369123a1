"""`cospan report`: the page of a finished run as one HTML file, written or served on the loopback."""

import contextlib
import math
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cospan.cli.commands.export import check_output, find_basis, folder_of
from cospan.cli.commands.runs import STATES
from cospan.cli.run_folder.layout import RunFolder, write_text
from cospan.cli.run_folder.stored_rounds import read_rounds
from cospan.client.files.agent_result import AgentResult
from cospan.client.files.result_file import load_result
from cospan.core.learning.units import Units
from cospan.core.specification import RunSpecification
from cospan.dashboard.payloads import AGENT_COLUMNS, agent_row, heat_map, run_identity, series_of, spectrum_values
from cospan.dashboard.rank_spectrum import Spectrum, spectrum_of_covariance, spectrum_of_moments
from cospan.dashboard.report_page import report_page
from cospan.dashboard.series import RoundSeries
from cospan.server.admission.file_limits import small_connections
from cospan.server.machine.snapshot import SavedRun
from cospan.server.net.host_header import LOOPBACK_NAMES
from cospan.server.net.http_server import Answer, PlainHttpServer, Request
from cospan.server.storage.reader import read_saved
from cospan.wire.errors import RunFileError
from cospan.wire.messages import AgentPhase, AgentReport

_MOST_AGENTS = 10_000
"""Agents that a report lists, so that it stays below 3 MB."""
_MOST_FILES = 2_000
"""Agents' files that are read: a few milliseconds each."""
_NOT_KEPT = ("absent", "outliers", "reconnects")
"""Known to a coordinator, not to files."""
_OF_FILE = ("agent_id", "head", "reward_moments", "feature_squares", "curve_mean_squared_td_error")
"""Arrays that are read from an agent's file; the rest may be gigabytes."""


def report_run(run: Path, output: Path | None, *, serve: bool, force: bool) -> int:
    """Writes the report of a run, or serves it on the loopback until Ctrl-C; the exit code.

    Raises:
        RunFileError: there is no such run, or the file cannot be written.
    """
    folder = folder_of(run)
    if output is not None:
        check_output(output, force=force)
    page = report_page(report_frame(folder))
    if output is not None:
        write_text(output, page)
        print(f"wrote {output}: {len(page.encode()) / 1e6:.2f} MB, opens in any browser, offline", file=sys.stderr)
    if serve or output is None:
        _serve(page.encode())
    return 0


def report_frame(folder: RunFolder) -> dict[str, Any]:
    """The data of the page, in the form that the dashboard receives, from the files of the run folder."""
    kept = find_basis(folder, None)
    result = folder.read_result() if folder.result.exists() else {}
    saved = read_saved(folder.store) if folder.store.exists() else None
    series = RoundSeries()
    for closed in read_rounds(folder):
        series.add(closed)
    files = dict(_agents_files(folder))
    learnt = {row["id"]: row for row in result.get("per_agent", ())}
    names = sorted({*learnt, *(saved.rounds_counted if saved else ()), *files})
    spectrum = (
        _spectrum_of_files(kept.specification, files)
        if kept.head_covariance is None
        else spectrum_of_covariance(kept.head_covariance)
    )
    seconds = result.get("seconds")
    cause = result.get("finish_cause")
    run = {
        **run_identity(kept.specification, kept.run_id),
        "round": kept.round,
        "phase": "finished" if cause else "stored",
        "phase_seconds": 0.0,
        "rounds_per_second": kept.round / seconds if seconds else 0.0,
        "round_times": series.round_times,
        "waiting": {"count": 0, "names": []},
        "finish_cause": cause,
        "finish_text": STATES.get(str(cause), "ended") if cause else None,
        "live": False,
        "errors": {"subspace": result.get("subspace_error"), "value": result.get("value_error")},
        "message": result.get("message", "the run has no result yet: it can be resumed"),
    }
    return {
        "whole": True,
        "run": run,
        "series": series_of(series),
        "agents": [
            _row(name, saved, learnt.get(name), files.get(name), kept.round) for name in names[:_MOST_AGENTS]
        ],
        "agents_left_out": max(0, len(names) - _MOST_AGENTS),
        "basis": heat_map(kept.basis),
        "spectrum": spectrum_values(spectrum),
    }


def _agents_files(folder: RunFolder) -> Iterator[tuple[str, AgentResult]]:
    """Existing files of agents, by name; groups also write one for each agent."""
    paths = sorted(folder.agents.glob("*.npz"))[:_MOST_FILES] if folder.agents.is_dir() else []
    for path in paths:
        try:
            found = load_result(path, names=_OF_FILE)
        except RunFileError as failure:
            if not path.name.startswith("group-"):
                print(f"cospan: {failure}; it is left out of the report", file=sys.stderr)
            continue
        yield found.text("agent_id"), found


def _row(
    name: str, saved: SavedRun | None, learnt: dict[str, Any] | None, file: AgentResult | None, rounds: int
) -> list[Any]:
    gone = (
        next((departure for departure in saved.departures if departure.agent_id == name), None) if saved else None
    )
    report = AgentReport(
        agent_id=name,
        phase=AgentPhase.GONE if gone else AgentPhase.CONNECTED,
        seconds_since_last_message=0.0,
        awaited=False,
        rounds_counted=saved.rounds_counted.get(name, 0) if saved else rounds,
        reconnects=gone.reconnects if gone else 0,
        gone_in_round=gone.round if gone else None,
        gone_cause=gone.cause if gone else "",
        last_round=saved.rounds_counted.by_name.get(name, (0, None))[1]
        if saved
        else (rounds - 1 if rounds else None),
        td_error=_last_td_error(file),
    )
    value_error = learnt.get("value_error") if learnt else None
    row = agent_row(report, None, value_error)
    for column in _NOT_KEPT:
        row[AGENT_COLUMNS.index(column)] = None
    return [*row, _more(learnt)]


def _more(learnt: dict[str, Any] | None) -> dict[str, Any]:
    """Numbers of an agent that only the run result has, by their titles on the page."""
    if learnt is None:
        return {}
    names = {
        "label": "Site",
        "mean_reward": "Mean reward",
        "gain": "Gain (learnt)",
        "gain_error": "Gain error",
        "lstd_alone_error": "Value error of LSTD alone",
        "td_alone_error": "Value error of TD alone",
        "ratio": "Value error / best alone",
        "shared_weight": "Shared weight",
    }
    return {title: learnt[key] for key, title in names.items() if learnt.get(key) is not None}


def _last_td_error(file: AgentResult | None) -> float | None:
    if file is None:
        return None
    errors = file.numbers("curve_mean_squared_td_error", 1)
    return math.sqrt(errors[-1]) if len(errors) and errors[-1] >= 0.0 else None


def _spectrum_of_files(spec: RunSpecification, files: dict[str, AgentResult]) -> Spectrum | None:
    """Spectrum of the last heads, with the run's reward scaling."""
    moment = np.zeros((spec.rank, spec.rank))
    for file in files.values():
        head = file.numbers("head", 1)
        unit = 1.0
        if spec.method.reward_scaled:
            count, _, squares, _ = file.numbers("reward_moments", 1)
            steps = max(count, 1.0)
            unit = float(Units.of(squares / steps, file.number("feature_squares") / steps).head)
        if len(head) == spec.rank and np.isfinite(head).all():
            moment += np.outer(head / unit, head / unit)
    return spectrum_of_moments(moment)


def _serve(page: bytes) -> None:
    """Serves the page on a free port of the loopback until Ctrl-C."""

    async def answer(request: Request) -> Answer:
        if request.path != "/":
            return Answer(404, b"the report is at /\n")
        return Answer(200, page, "text/html; charset=utf-8", {"X-Frame-Options": "DENY"})

    most, names = small_connections(), LOOPBACK_NAMES
    with PlainHttpServer("127.0.0.1", 0, answer, name="report", most=most, names=names) as server:
        print(f"the report is at http://127.0.0.1:{server.port}/; Ctrl-C ends this", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
