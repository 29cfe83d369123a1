"""`cospan report`: the page of a finished run, or of two, as one HTML file, written or served on the loopback."""

import contextlib
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cospan.cli.commands.export import ExportedBasis, check_output, find_basis, folder_of
from cospan.cli.commands.runs import STATES
from cospan.cli.run_folder.layout import RunFolder, write_text
from cospan.cli.run_folder.stored_curves import Curve, points_each, quartile_columns, read_agents
from cospan.cli.run_folder.stored_rounds import read_rounds
from cospan.client.files.agent_result import AgentResult
from cospan.core.learning.units import Units
from cospan.core.privacy.private_run import spent_after
from cospan.core.specification import RunSpecification
from cospan.core.statistics import known
from cospan.dashboard.analysis.agent_history import history_of
from cospan.dashboard.analysis.answers import answers_of
from cospan.dashboard.analysis.facts import Facts
from cospan.dashboard.analysis.learnt import Learnt, error_columns
from cospan.dashboard.analysis.trend import PriorSnapshots, Trend, error_trend, movement_trend
from cospan.dashboard.payloads import (
    AGENT_COLUMNS,
    agent_row,
    answer_values,
    heat_map,
    run_identity,
    series_of,
    spectrum_values,
)
from cospan.dashboard.rank_spectrum import Spectrum, spectrum_of_covariance, spectrum_of_moments
from cospan.dashboard.report_page import report_page
from cospan.dashboard.series import RoundSeries
from cospan.server.admission.file_limits import small_connections
from cospan.server.machine.snapshot import SavedRun
from cospan.server.net.host_header import LOOPBACK_NAMES
from cospan.server.net.http_server import Answer, PlainHttpServer, Request
from cospan.server.storage.reader import read_basis, read_saved
from cospan.wire.errors import InvalidValueError
from cospan.wire.messages import AgentPhase, AgentReport
from cospan.wire.text import printable

_MOST_AGENTS = 10_000
"""Agents that a report lists, so that it stays below 3 MB."""
_NOT_KEPT = ("absent", "outliers", "reconnects", "arrives")
"""Known to a coordinator, not to files."""
_OF_FILE = (
    "agent_id", "label", "head", "reward_moments", "feature_squares", "mean_reward", "mean_reward_half_width",
    "gain", "shared_weight",
)  # fmt: skip
"""Arrays that are read from an agent's file beside its curve; the rest may be gigabytes."""


def report_run(runs: list[Path], output: Path | None, *, serve: bool, force: bool) -> int:
    """Writes the report of a run, or of two beside each other, or serves it until Ctrl-C; the exit code.

    Raises:
        InvalidValueError: there are more than two runs.
        RunFileError: there is no such run, or the file cannot be written.
    """
    if len(runs) > 2:
        raise InvalidValueError(f"a report shows one run or two, and {len(runs)} are named; leave some out")
    folders = [folder_of(run) for run in runs]
    if output is not None:
        check_output(output, force=force)
    frame = report_frame(folders[0])
    if len(folders) == 2:
        frame["other"] = compared(folders[1])
    page = report_page(frame)
    if output is not None:
        write_text(output, page)
        print(f"wrote {output}: {len(page.encode()) / 1e6:.2f} MB, opens in any browser, offline", file=sys.stderr)
    if serve or output is None:
        _serve(page.encode())
    return 0


@dataclass(frozen=True, eq=False, slots=True)
class _Stored:
    """What the files of a run folder hold.

    Attributes:
        kept: the last basis, and the specification.
        result: of `result.json`; empty without one.
        saved: of the store; None without one.
        files: agent id → its file, with few of its arrays.
        curves: agent id → its learning curve.
        learnt: agent id → its numbers.
        series: of the rounds.
    """

    kept: ExportedBasis
    result: dict[str, Any]
    saved: SavedRun | None
    files: dict[str, AgentResult]
    curves: dict[str, Curve]
    learnt: dict[str, Learnt]
    series: RoundSeries

    @property
    def names(self) -> list[str]:
        """The agents of the run, sorted."""
        return sorted({*self.learnt, *(self.saved.rounds_counted if self.saved else ()), *self.files})


def _read(folder: RunFolder) -> _Stored:
    kept = find_basis(folder, None)
    result = folder.read_result() if folder.result.exists() else {}
    saved = read_saved(folder.store) if folder.store.exists() else None
    series = RoundSeries()
    for closed in read_rounds(folder):
        series.add(closed)
    files: dict[str, AgentResult] = {}
    curves: dict[str, Curve] = {}
    for file, curve in read_agents(folder, _OF_FILE):
        name = file.text("agent_id")
        files[name], curves[name] = file, curve
    learnt = {row["id"]: _learnt_of_result(row) for row in result.get("per_agent", ())}
    learnt |= {name: _learnt_of_file(file, curves[name]) for name, file in files.items() if name not in learnt}
    gone = {departure["agent_id"] for departure in result.get("departures", ())}
    present = {name: curve for name, curve in curves.items() if name not in gone}
    series.fill(quartile_columns(present, np.array([point.last for point in series.points], dtype=np.int64)))
    series.learn({name: value for name, value in error_columns(learnt).items() if name == "outside"})
    return _Stored(kept, result, saved, files, curves, learnt, series)


def report_frame(folder: RunFolder) -> dict[str, Any]:
    """The data of the page, in the form that the dashboard receives, from the files of the run folder."""
    stored = _read(folder)
    spec, kept = stored.kept.specification, stored.kept
    spectrum = (
        _spectrum_of_files(spec, stored.files)
        if kept.head_covariance is None
        else spectrum_of_covariance(kept.head_covariance)
    )
    names = stored.names[:_MOST_AGENTS]
    reports = [_agent_report(name, stored) for name in names]
    facts = Facts(
        specification=spec,
        rounds=kept.round,
        series=stored.series,
        agents=reports,
        learnt=stored.learnt,
        td_errors={
            name: error for name, curve in stored.curves.items() if (error := curve.recent_td_error) is not None
        },
        trend=_trend(folder, stored),
        spectrum=spectrum,
        cause=stored.result.get("finish_cause"),
        message=stored.result.get("message", ""),
        live=False,
    )
    most = points_each(len(names))
    return {
        "whole": True,
        "run": _run_values(folder, stored),
        "series": series_of(stored.series),
        "agents": [_row(report) for report in reports],
        "learnt": [stored.learnt[name].as_row(name) for name in names if name in stored.learnt],
        "agents_left_out": max(0, len(stored.names) - _MOST_AGENTS),
        "histories": {name: history_of(curve.thinned(most)) for name, curve in stored.curves.items()},
        "answers": answer_values(answers_of(facts)),
        "basis": heat_map(kept.basis),
        "spectrum": spectrum_values(spectrum),
    }


def compared(folder: RunFolder) -> dict[str, Any]:
    """A second run for the charts of a report: its identity, its rounds and its last numbers."""
    stored = _read(folder)
    return {"run": _run_values(folder, stored), "series": series_of(stored.series)}


def _run_values(folder: RunFolder, stored: _Stored) -> dict[str, Any]:
    kept, result = stored.kept, stored.result
    seconds, cause = result.get("seconds"), result.get("finish_cause")
    newest = stored.series.newest
    baselines = result.get("baselines") or {}
    return {
        **run_identity(kept.specification, kept.run_id),
        "privacy": _spent(stored),
        "name": printable(folder.path.resolve().name),
        "round": kept.round,
        "phase": "finished" if cause else "stored",
        "phase_seconds": 0.0,
        "rounds_per_second": kept.round / seconds if seconds else 0.0,
        "round_times": stored.series.round_times,
        "waiting": {"count": 0, "names": []},
        "finish_cause": cause,
        "finish_text": STATES.get(str(cause), "ended") if cause else None,
        "live": False,
        "errors": {
            "outside": newest("outside"),
            "subspace": result.get("subspace_error", newest("subspace_error")),
            "value": result.get("value_error", newest("value_error")),
            "lstd_alone": baselines.get("lstd_alone", newest("lstd_alone")),
            "td_alone": baselines.get("td_alone", newest("td_alone")),
        },
        "message": result.get("message", "the run has no result yet: it can be resumed"),
    }


def _spent(stored: _Stored) -> str | None:
    """What the run has cost of its privacy budget; None in a run without, or one that has no result yet."""
    privacy = stored.result.get("privacy") or {}
    spent = spent_after(stored.kept.specification, privacy["vectors_sent"]) if "vectors_sent" in privacy else None
    return None if spent is None else str(spent)


def _learnt_of_result(row: Mapping[str, Any]) -> Learnt:
    """Of `result.json`."""
    names = {"lstd_alone": "lstd_alone_error", "td_alone": "td_alone_error", "half_width": "mean_reward_half_width"}
    same = ("value_error", "gain", "mean_reward", "shared_weight", "held_share")
    numbers = {name: row.get(names.get(name, name)) for name in (*same, *names)}
    held_out = row.get("held_out") or {}
    return Learnt(
        label=printable(str(row.get("label", ""))),
        held_out_error=held_out.get("joint"),
        held_out_lstd_alone=held_out.get("lstd_alone"),
        **numbers,
    )


def _learnt_of_file(file: AgentResult, curve: Curve) -> Learnt:
    """Of an agent's file, where the run has no result."""

    def number(name: str) -> float | None:
        return known(float(file.array(name).flat[0])) if name in file.values and file.array(name).size else None

    newest = curve.at(curve.rounds[-1:]).ravel().tolist()
    _, joint, lstd, td = map(known, newest) if newest else (None,) * 4
    return Learnt(
        label=printable(file.text("label")) if "label" in file.values else "",
        value_error=joint,
        lstd_alone=lstd,
        td_alone=td,
        gain=number("gain"),
        mean_reward=number("mean_reward"),
        half_width=number("mean_reward_half_width"),
        shared_weight=number("shared_weight"),
    )


def _agent_report(name: str, stored: _Stored) -> AgentReport:
    """What the files say of one agent's part in the run."""
    saved, rounds = stored.saved, stored.kept.round
    departures = saved.departures if saved else ()
    gone = next((departure for departure in departures if departure.agent_id == name), None)
    if saved is None:
        last_round = rounds - 1 if rounds else None
    else:
        last_round = saved.rounds_counted.by_name.get(name, (0, None))[1]
    curve = stored.curves.get(name)
    td_error = known(float(curve.at(curve.rounds[-1:])[0, 0])) if curve is not None and len(curve.rounds) else None
    return AgentReport(
        agent_id=name,
        phase=AgentPhase.GONE if gone else AgentPhase.CONNECTED,
        seconds_since_last_message=0.0,
        awaited=False,
        rounds_counted=saved.rounds_counted.get(name, 0) if saved else rounds,
        reconnects=gone.reconnects if gone else 0,
        gone_in_round=gone.round if gone else None,
        gone_cause=gone.cause if gone else "",
        last_round=last_round,
        td_error=td_error,
        head_bounded=name in stored.result.get("bounded_agents", ()),
        policy_improved=name in _improved_agents(stored.result),
    )


def _improved_agents(result: Mapping[str, Any]) -> set[str]:
    """The agents that hold an improved policy, by a `result.json`."""
    rows = result.get("per_agent", ())
    return {row["id"] for row in rows if (row.get("policy") or {}).get("held_step") is not None}


def _row(report: AgentReport) -> list[Any]:
    row = agent_row(report, None)
    for column in _NOT_KEPT:
        row[AGENT_COLUMNS.index(column)] = None
    return row


def _trend(folder: RunFolder, stored: _Stored) -> Trend | None:
    """What moved since the middle of the run, as far as the files know."""
    found = error_trend(stored.series)
    kept = stored.kept
    if found is not None or kept.head_covariance is None:
        return found or movement_trend(stored.series)
    if not folder.store.exists():
        return None
    middle = kept.round / 2
    earlier = [number for number in read_basis(folder.store).state.kept if 0 < number <= 0.7 * kept.round]
    if not earlier:
        return None
    then = read_basis(folder.store, min(earlier, key=lambda number: abs(number - middle)))
    if then.head_covariance is None:
        return None
    snapshots = PriorSnapshots()
    snapshots.note(then.round, then.basis, then.head_covariance)
    return snapshots.trend(kept.round, kept.basis, kept.head_covariance)


def _spectrum_of_files(spec: RunSpecification, files: Mapping[str, AgentResult]) -> Spectrum | None:
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
