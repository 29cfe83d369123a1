"""`cospan run`: a whole run on this machine, from the plan to the summary."""

import asyncio
import contextlib
import json
import logging
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from cospan.cli.advice import advise, of_features, of_rank
from cospan.cli.dashboard import plan_dashboard
from cospan.cli.fleet import Fleet
from cospan.cli.in_process import InProcessRun
from cospan.cli.log_lines import log_errors_to_stderr, log_to_file, stop_logging
from cospan.cli.outcome import (
    AgentRow,
    DepartedAgent,
    RunFailedError,
    RunOutcome,
    agent_row,
    read_outcome,
    result_document,
    with_medians,
)
from cospan.cli.plot import draw_convergence
from cospan.cli.process import claim_stdout, use_one_blas_thread
from cospan.cli.progress import View, choose_view
from cospan.cli.recorder import RunMonitor, write_rounds
from cospan.cli.resuming import (
    Launch,
    Resumption,
    claimed,
    command_to_resume,
    is_complete,
    is_resumable,
    prepared,
    rounds_stored,
    seconds_to_come_back,
)
from cospan.cli.run_folder import RunFolder, check_free, make_run_folder
from cospan.cli.specifying import RunPlan, plan_with_workload
from cospan.cli.summary import summary_lines
from cospan.client.agent import default_agent_id
from cospan.client.group_file import agents_of, load_group
from cospan.client.loading import true_basis
from cospan.client.result_file import AgentResult, load_result
from cospan.client.specifying import DEFAULT_ROUNDS
from cospan.core.specification import SITE_PREFIX
from cospan.fleet.hosts import Host, hosts_of
from cospan.wire.errors import InterruptedRunError, InvalidValueError, RunFileError
from cospan.wire.messages import FinishCause

log = logging.getLogger(__name__)

_SHORTEST_START_SECONDS = 60.0
_START_SECONDS_PER_AGENT = 2.0
COORDINATOR_LOST = "coordinator-lost"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What is said of one run only, beside the settings."""

    workload: str | None
    spec: Path | None
    output: Path | None
    resume: Path | None = None
    in_process: bool = False
    json: bool = False
    quiet: bool = False
    debug: bool = False


def run_here(chosen: RunOptions, flags: Mapping[str, Any], config: Path | None) -> int:
    """Runs a fleet on this machine until the run is over; the exit code.

    Raises:
        CospanError: it cannot begin, or did not reach its end.
    """
    log_errors_to_stderr()
    data = claim_stdout() if chosen.json else None
    if chosen.resume is not None:
        return _resume(chosen, chosen.resume, flags, config, data)
    plan = plan_with_workload(
        flags, config, reference=chosen.workload, spec_file=chosen.spec, rounds=DEFAULT_ROUNDS
    )
    assert plan.workload is not None
    hosts = hosts_of(plan.specification, plan.settings.processes, called="processes")
    if plan_dashboard(plan.settings, None) is not None and chosen.in_process:
        raise InvalidValueError(
            "--dashboard shows a coordinator's process, and --in-process has none; leave out one"
        )
    if chosen.output is not None:
        check_free(chosen.output)
    use_one_blas_thread()
    spec = plan.specification
    assert plan.site is not None
    advise([*of_rank(spec), *of_features(spec, plan.site)])
    monitor = RunMonitor(agents=spec.agents, total=spec.rounds, true_basis=true_basis(plan.workload, spec))
    folder = make_run_folder(chosen.output, workload=plan.workload.name or spec.workload)
    try:
        Launch.of(plan.settings, in_process=chosen.in_process).write(folder)
        folder.write_spec(spec)
        return _from_here(plan, hosts, folder, monitor, chosen, data)
    except BaseException:
        if not monitor.rows and not rounds_stored(folder):
            folder.discard()
        raise
    finally:
        folder.release()


def _resume(
    chosen: RunOptions, path: Path, flags: Mapping[str, Any], config: Path | None, data: TextIO | None
) -> int:
    """Runs on where the run of a folder was stored; the exit code.

    Raises:
        CospanError: it cannot be resumed, or did not reach its end.
    """
    if chosen.output is not None or chosen.spec is not None or chosen.in_process:
        raise InvalidValueError(
            f"--resume {path} goes on in that folder, with its specification; leave out --output, --spec and "
            "--in-process"
        )
    folder = claimed(path)
    try:
        over = is_complete(folder)
        if over:
            print(over, file=sys.stderr)
            return 0
        resumption = prepared(folder, flags, config, chosen.workload)
        plan = resumption.plan
        assert plan.workload is not None
        spec = plan.specification
        hosts = hosts_of(spec, plan.settings.processes, called="processes")
        plan_dashboard(plan.settings, None)
        use_one_blas_thread()
        truth = true_basis(plan.workload, spec)
        monitor = RunMonitor(agents=spec.agents, total=spec.rounds, true_basis=truth)
        return _from_here(plan, hosts, folder, monitor, chosen, data, resumption)
    finally:
        folder.release()


def _from_here(
    plan: RunPlan,
    hosts: Sequence[Host],
    folder: RunFolder,
    monitor: RunMonitor,
    chosen: RunOptions,
    data: TextIO | None,
    resumption: Resumption | None = None,
) -> int:
    """The run in its folder, and what is left of it; the exit code."""
    view = choose_view(quiet=chosen.quiet)
    try:
        outcome, interrupted = _carry_out(plan, hosts, folder, monitor, view, chosen, resumption)
    finally:
        view.close()
    _conclude(outcome, hosts, folder, monitor, data, quiet=chosen.quiet)
    return _exit_code(outcome, interrupted, folder)


def _carry_out(
    plan: RunPlan,
    hosts: Sequence[Host],
    folder: RunFolder,
    monitor: RunMonitor,
    view: View,
    chosen: RunOptions,
    resumption: Resumption | None,
) -> tuple[RunOutcome, str]:
    """The run itself: how it ended, and the signal that ended it, or "".

    Raises:
        CospanError: it could not begin; there is nothing to keep.
    """
    if chosen.in_process:
        outcome, interrupted = _in_process(plan, hosts, folder, monitor, view)
    else:
        outcome, interrupted = asyncio.run(
            _networked(plan, hosts, folder, monitor, view, resumption, debug=chosen.debug)
        )
    if outcome.rounds == 0:
        why = f"it was interrupted by {interrupted}" if interrupted else outcome.message
        kind = InterruptedRunError if interrupted else RunFailedError
        raise kind(f"the run ended before its first round was done: {why}")
    return replace(outcome, subspace_error=monitor.subspace_error(outcome.basis)), interrupted


def _in_process(
    plan: RunPlan, hosts: Sequence[Host], folder: RunFolder, monitor: RunMonitor, view: View
) -> tuple[RunOutcome, str]:
    folder.agents.mkdir()
    handler = log_to_file(folder.log)
    try:
        run = InProcessRun(plan, hosts, folder, monitor, view, run_id=secrets.token_hex(8))
        outcome = run.run()
    finally:
        stop_logging(handler)
    assert outcome.basis is not None
    folder.write_basis(outcome.basis, run_id=outcome.run_id, rounds=outcome.rounds)
    return outcome, run.interrupted


async def _networked(
    plan: RunPlan,
    hosts: Sequence[Host],
    folder: RunFolder,
    monitor: RunMonitor,
    view: View,
    resumption: Resumption | None,
    *,
    debug: bool,
) -> tuple[RunOutcome, str]:
    start_seconds = plan.settings.start_seconds
    if start_seconds is None:
        start_seconds = max(_SHORTEST_START_SECONDS, _START_SECONDS_PER_AGENT * plan.specification.agents)
    if resumption is not None:
        start_seconds += seconds_to_come_back(folder)
    fleet = Fleet(
        plan, folder, monitor, view, hosts, start_seconds=start_seconds, debug=debug, resumption=resumption
    )
    await fleet.run()
    if fleet.failure is not None:
        if resumption is None:
            folder.discard()  # the others may have learnt for a moment, but this was no run
        raise fleet.failure
    outcome = _outcome_of_coordinator(plan, folder, monitor, fleet.complaint)
    if fleet.deserted and outcome.cause == FinishCause.STOPPED.value:
        outcome = _without_agents(outcome, fleet)
    elif fleet.coordinator_interrupted and not fleet.interrupted:
        return outcome, "a signal to its coordinator"
    return outcome, fleet.interrupted


def _without_agents(outcome: RunOutcome, fleet: Fleet) -> RunOutcome:
    """The outcome of a run that was stopped because every agent process had ended: the coordinator was not told."""
    known = {departure.agent_id for departure in outcome.departures}
    lost = [DepartedAgent(name, outcome.rounds, cause) for name, cause in fleet.losses.items() if name not in known]
    return replace(
        outcome,
        cause=FinishCause.NO_AGENTS.value,
        message=f"every agent process has ended; the last: {fleet.deserted}",
        agents=0,
        departures=(*outcome.departures, *lost),
    )


def _outcome_of_coordinator(plan: RunPlan, folder: RunFolder, monitor: RunMonitor, complaint: str) -> RunOutcome:
    """What the coordinator has written; what is known here, where it was ended before it could write."""
    try:
        document = json.loads(folder.result.read_text(encoding="utf-8"))
        return read_outcome(document, plan.specification, folder.read_basis())
    except (OSError, RunFileError):
        counted = sum(row.contributors for row in monitor.rows)
        return RunOutcome(
            specification=plan.specification,
            run_id="",
            cause=COORDINATOR_LOST,
            message=complaint or "the coordinator process ended in the middle of the run",
            rounds=len(monitor.rows),
            seconds=sum(row.seconds for row in monitor.rows),
            agents=len(list(folder.agents.glob(f"{SITE_PREFIX}*.npz"))),
            agent_steps=counted * plan.specification.method.steps_per_round,
            basis=None,
        )


# What is left -----------------------------------------------------------------------------------------------------


def _conclude(
    outcome: RunOutcome,
    hosts: Sequence[Host],
    folder: RunFolder,
    monitor: RunMonitor,
    data: TextIO | None,
    *,
    quiet: bool,
) -> None:
    """Completes the run folder, and prints what came out."""
    results = _results(folder, hosts)
    agents = [_row(index, results, monitor) for index in range(outcome.specification.agents)]
    document = result_document(outcome, agents)
    rows = with_medians(monitor.rows, results.values())
    write_rounds(folder.rounds, rows)
    folder.write_result(document)
    if not is_resumable(folder):
        with contextlib.suppress(OSError):
            folder.subspace_errors.unlink(missing_ok=True)
    advice = draw_convergence(folder.picture, outcome.specification, rows, list(results.values()))
    if advice and not quiet:
        print(advice, file=sys.stderr)
    if data is not None:
        print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False), file=data, flush=True)
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in summary_lines(outcome, agents, document, folder.path, width=width):
        print(line)


def _results(folder: RunFolder, hosts: Sequence[Host]) -> dict[str, AgentResult]:
    """What is there of the agents, by name: of a group from its one file, for thousands are slow to read."""
    found: dict[str, AgentResult] = {}
    for host in hosts:
        path = folder.agent(host.name)
        if path.exists():
            try:
                results = agents_of(load_group(path)) if host.is_group else [load_result(path)]
            except RunFileError as failure:
                print(f"cospan: {failure}; it is left out of the summary", file=sys.stderr)
            else:
                found |= {result.text("agent_id"): result for result in results}
    return found


def _row(index: int, results: Mapping[str, AgentResult], monitor: RunMonitor) -> AgentRow:
    """The numbers of an agent; of one that left no file only what it is called."""
    name = default_agent_id(index)
    if name in results:
        return agent_row(results[name])
    progress = monitor.agents.get(name)
    return AgentRow(id=name, label=progress.label if progress else "")


def _exit_code(outcome: RunOutcome, interrupted: str, folder: RunFolder) -> int:
    """0 where the run did what was asked for: its rounds, or those until an administrator stopped it.

    Raises:
        InterruptedRunError: a signal ended it before.
        RunFailedError: it did not reach its end.
    """
    spec = outcome.specification
    stopped = outcome.cause == FinishCause.STOPPED.value and not interrupted
    if outcome.cause == FinishCause.ROUNDS_REACHED.value or stopped:
        return 0
    of = f" of {spec.rounds}" if spec.rounds else ""
    why = f"it was interrupted by {interrupted}" if interrupted else outcome.message
    kind = InterruptedRunError if interrupted else RunFailedError
    again = f"; resume with: {command_to_resume(folder.path)}" if is_resumable(folder) else ""
    raise kind(
        f"the run ended after {outcome.rounds}{of} rounds: {why}; what was learnt is in {folder.path}{again}"
    )
