"""`cospan run`: a whole run on this machine, from the plan to the summary."""

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from cospan.cli.engines.choice import HERE, Engine
from cospan.cli.output.log_lines import log_errors_to_stderr, log_to_file, stop_logging
from cospan.cli.output.plot import draw_convergence, draw_sites
from cospan.cli.output.progress import View, choose_view
from cospan.cli.output.run_problems import (
    features_to_add,
    lacking_features,
    lost_agents,
    unlike_sites,
    with_causes,
)
from cospan.cli.output.summary import next_commands, show_summary, summary_lines
from cospan.cli.processes.agent_argv import check_open_files
from cospan.cli.processes.dashboard import plan_dashboard
from cospan.cli.processes.in_process_run import InProcessRun
from cospan.cli.processes.local_fleet import LocalFleet, Nodes
from cospan.cli.processes.this_process import (
    claim_stdout,
    collect_from_now_on,
    ignore_hangups,
    use_one_blas_thread,
)
from cospan.cli.run_folder.agent_results import agent_results, row_of, saved_agents
from cospan.cli.run_folder.layout import RunFolder, check_free, make_run_folder, result_text
from cospan.cli.run_folder.progress_log import RunMonitor, write_rounds
from cospan.cli.run_folder.resume import (
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
from cospan.cli.run_folder.run_result import (
    RunFailedError,
    RunOutcome,
    read_outcome,
    result_document,
    with_medians,
)
from cospan.cli.settings.run_specification import RunPlan, plan_with_workload
from cospan.cli.settings.run_warnings import advise, of_agents, of_features, of_rank
from cospan.cli.tracking.feeder import Tracking, tracking_of
from cospan.cli.tracking.sink import check_installed
from cospan.client.environment.ownership import closing_on_failure
from cospan.client.environment.workload_loader import true_basis
from cospan.client.learning.default_run import DEFAULT_ROUNDS
from cospan.client.placement import Host, hosts_of
from cospan.client.session.run_checks import below_floor
from cospan.core.privacy.private_run import most_sent
from cospan.server.storage.reader import read_reports
from cospan.wire.console import say
from cospan.wire.errors import AgentsLostError, InterruptedRunError, InvalidValueError, RunFileError
from cospan.wire.files.descriptor_limit import raise_file_limit
from cospan.wire.messages import FinishCause
from cospan.wire.secure_sums.availability import require_cryptography
from cospan.wire.text import listed

log = logging.getLogger(__name__)

_SHORTEST_START_SECONDS = 60.0
_START_SECONDS_PER_AGENT = 2.0
COORDINATOR_LOST = "coordinator-lost"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of `cospan run` that are not settings."""

    workload: str | None
    spec: Path | None
    output: Path | None
    resume: Path | None = None
    in_process: bool = False
    json: bool = False
    quiet: bool = False
    debug: bool = False
    allow_losses: bool = False
    track: tuple[str, ...] = ()
    engine: Engine | None = None


def run_here(chosen: RunOptions, flags: Mapping[str, Any], config: Path | None) -> int:
    """Runs a fleet on this machine until the run is over; the exit code.

    Raises:
        CospanError: the run cannot start, or failed.
    """
    collect_from_now_on()
    log_errors_to_stderr()
    data = claim_stdout() if chosen.json else None
    for name in chosen.track:
        check_installed(name)
    if chosen.resume is not None:
        return _resume(chosen, chosen.resume, flags, config, data)
    plan = plan_with_workload(
        flags, config, reference=chosen.workload, spec_file=chosen.spec, rounds=DEFAULT_ROUNDS
    )
    assert plan.workload is not None
    assert plan.site is not None
    with closing_on_failure(plan.site):
        hosts, folder, monitor = _prepared(plan, chosen)
    if not chosen.in_process:
        plan.close()  # the first agent's process makes this site again, and may need what it holds
    try:
        Launch.of(plan.settings, in_process=chosen.in_process, engine=chosen.engine or HERE).write(folder)
        folder.write_spec(plan.specification)
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
    """Resumes the run of a folder; the exit code.

    Raises:
        CospanError: the run cannot be resumed, or failed.
    """
    if chosen.output is not None or chosen.spec is not None or chosen.in_process:
        raise InvalidValueError(
            f"--resume {path} resumes in that folder, with its specification; leave out --output, --spec and "
            "--in-process"
        )
    folder = claimed(path)
    try:
        over = is_complete(folder)
        if over:
            say(over)
            if data is not None:
                with contextlib.suppress(RunFileError):  # a run that failed may have none
                    _print_document(folder.read_result(), data, folder)
            return 0
        resumption = prepared(folder, flags, config, chosen.workload)
        chosen = replace(chosen, engine=chosen.engine or resumption.engine)
        plan = resumption.plan
        assert plan.workload is not None
        spec = plan.specification
        try:
            hosts = hosts_of(spec, plan.settings.processes, called="processes")
            plan_dashboard(plan.settings, None)
            _check_processes(plan, hosts)
            use_one_blas_thread()
            truth = true_basis(plan.workload, spec)
        finally:
            plan.close()  # the first agent's process makes this site again, and may need what it holds
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
    """Executes the run and completes its folder; the exit code."""
    view = choose_view(quiet=chosen.quiet)
    try:
        tracking = tracking_of(chosen.track, folder, plan.specification, monitor.rows, view)
        try:
            outcome, interrupted = _carry_out(plan, hosts, folder, monitor, view, chosen, resumption)
        except BaseException:
            tracking.close()
            raise
    finally:
        view.close()
    ignore_hangups()  # a terminal that closes now must not prevent the summary's files
    _conclude(outcome, hosts, folder, monitor, data, tracking, quiet=chosen.quiet)
    return _exit_code(outcome, interrupted, folder, allow_losses=chosen.allow_losses)


def _prepared(plan: RunPlan, chosen: RunOptions) -> tuple[list[Host], RunFolder, RunMonitor]:
    """Checks the plan and makes the folder, before anything is started."""
    assert plan.workload is not None
    assert plan.site is not None
    hosts = hosts_of(plan.specification, plan.settings.processes, called="processes")
    if plan_dashboard(plan.settings, None) is not None and chosen.in_process:
        raise InvalidValueError(
            "--dashboard shows a coordinator's process, and --in-process has none; leave out one"
        )
    if not chosen.in_process:
        _check_processes(plan, hosts)
    if chosen.output is not None:
        check_free(chosen.output)
    use_one_blas_thread()
    spec = plan.specification
    advise([*of_rank(spec), *of_features(spec, plan.site), *of_agents(spec.agents)])
    if plan.workload.describe is not None and not chosen.quiet:
        for sentence in plan.workload.describe():
            say(sentence)
    monitor = RunMonitor(agents=spec.agents, total=spec.rounds, true_basis=true_basis(plan.workload, spec))
    return hosts, make_run_folder(chosen.output, workload=plan.workload.name or spec.workload), monitor


def _check_processes(plan: RunPlan, hosts: Sequence[Host]) -> None:
    """Checks that the run's processes can work.

    Raises:
        StepsBelowFloorError: agents would refuse the run; in one process nothing is sent, so there is no floor.
        InvalidValueError: the limit of open files is too low for the processes; or secure sums are not possible
            with so few of them, or without the package that has the ciphers.
    """
    if plan.specification.secure_sums:
        require_cryptography()
    problem = plan.specification.cohort_problem(len(hosts))
    if problem:
        raise InvalidValueError(problem)
    refusal = below_floor(plan.specification, plan.settings.min_steps_per_round)
    if refusal is not None:
        raise refusal
    check_open_files(hosts, plan.specification.agents, raise_file_limit())


def _carry_out(
    plan: RunPlan,
    hosts: Sequence[Host],
    folder: RunFolder,
    monitor: RunMonitor,
    view: View,
    chosen: RunOptions,
    resumption: Resumption | None,
) -> tuple[RunOutcome, str]:
    """Runs; returns how the run ended, and the signal that ended it, or "".

    Raises:
        CospanError: the run could not start; there is nothing to keep.
    """
    if chosen.in_process:
        outcome, interrupted = _in_process(plan, hosts, folder, monitor, view)
    else:
        with (chosen.engine or HERE).nodes(plan, hosts, view.tell) as nodes:
            outcome, interrupted = asyncio.run(
                _networked(plan, hosts, folder, monitor, view, resumption, nodes, debug=chosen.debug)
            )
    if outcome.rounds == 0:
        why = f"it was interrupted by {interrupted}" if interrupted else outcome.message
        kind = InterruptedRunError if interrupted else RunFailedError
        raise kind(f"the run ended before its first round was done: {why}")
    return replace(outcome, subspace_error=monitor.subspace_error(outcome.basis)), interrupted


def _in_process(
    plan: RunPlan, hosts: Sequence[Host], folder: RunFolder, monitor: RunMonitor, view: View
) -> tuple[RunOutcome, str]:
    assert plan.site is not None
    with closing_on_failure(plan.site):
        folder.agents.mkdir()
        run = InProcessRun(plan, hosts, folder, monitor, view, run_id=secrets.token_hex(8))
    handler = log_to_file(folder.log)
    try:
        outcome = run.run()
    finally:
        stop_logging(handler)
    assert outcome.basis is not None
    folder.write_basis(outcome.basis, outcome.head_covariance, run_id=outcome.run_id, rounds=outcome.rounds)
    outcome = with_causes(outcome, run.losses, ())
    return replace(outcome, warnings=tuple(run.warnings.sentences())), run.interrupted


async def _networked(
    plan: RunPlan,
    hosts: Sequence[Host],
    folder: RunFolder,
    monitor: RunMonitor,
    view: View,
    resumption: Resumption | None,
    nodes: Nodes | None,
    *,
    debug: bool,
) -> tuple[RunOutcome, str]:
    start_seconds = plan.settings.start_seconds
    if start_seconds is None:
        start_seconds = max(_SHORTEST_START_SECONDS, _START_SECONDS_PER_AGENT * plan.specification.agents)
    if resumption is not None:
        start_seconds += seconds_to_come_back(folder)
    fleet = LocalFleet(
        plan, folder, monitor, view, hosts, start_seconds=start_seconds, debug=debug, resumption=resumption
    )
    fleet.place_agents(nodes)
    await fleet.run()
    if fleet.failure is not None:
        if resumption is None:
            folder.discard()  # others may have learnt briefly, but the run has not started
        raise fleet.failure
    with contextlib.suppress(RunFileError):  # after a kill it may be half of one
        if folder.store.exists():
            monitor.add_missing(read_reports(folder.store))
    outcome = _outcome_of_coordinator(plan, folder, monitor, fleet.complaint)
    if fleet.deserted and outcome.cause == FinishCause.STOPPED.value:
        outcome = _without_agents(outcome, fleet)
    outcome = with_causes(outcome, fleet.losses, fleet.left)
    outcome = replace(outcome, warnings=tuple(fleet.warnings.sentences()))
    if fleet.coordinator_interrupted and not fleet.interrupted and not fleet.deserted:
        return outcome, "a signal to its coordinator"
    return outcome, fleet.interrupted


def _without_agents(outcome: RunOutcome, fleet: LocalFleet) -> RunOutcome:
    """The outcome of a run that this process stopped because all agent processes had ended."""
    return replace(
        outcome,
        cause=FinishCause.NO_AGENTS.value,
        message=f"every agent process has ended; the last: {fleet.deserted}",
        agents=0,
    )


def _outcome_of_coordinator(plan: RunPlan, folder: RunFolder, monitor: RunMonitor, complaint: str) -> RunOutcome:
    """The coordinator's outcome; if it ended before it could write, what is known here."""
    try:
        return read_outcome(folder.read_result(), plan.specification, folder.read_basis())
    except RunFileError:
        counted = sum(row.contributors for row in monitor.rows)
        return RunOutcome(
            specification=plan.specification,
            run_id="",
            cause=COORDINATOR_LOST,
            message=complaint or "the coordinator process ended in the middle of the run",
            rounds=len(monitor.rows),
            void_rounds=sum(not row.contributors for row in monitor.rows),
            seconds=sum(row.seconds for row in monitor.rows),
            agents=saved_agents(folder),
            agent_steps=counted * plan.specification.method.steps_per_round,
            basis=None,
            vectors_sent=most_sent(len(monitor.rows), 1, is_open=True),
        )


# Results ----------------------------------------------------------------------------------------------------------


def _conclude(
    outcome: RunOutcome,
    hosts: Sequence[Host],
    folder: RunFolder,
    monitor: RunMonitor,
    data: TextIO | None,
    tracking: Tracking,
    *,
    quiet: bool,
) -> None:
    """Completes the run folder and the trackers, and prints the summary."""
    results = agent_results(folder, hosts)
    agents = [row_of(index, results, monitor) for index in range(outcome.specification.agents)]
    unlike = unlike_sites(agents, outcome.specification.rank, outcome.rank_in_use)
    outcome = replace(
        outcome, warnings=(*outcome.warnings, *unlike, *lacking_features(agents), *features_to_add(agents))
    )
    document = result_document(outcome, agents)
    rows = with_medians(monitor.rows, results.values())
    write_rounds(folder.rounds, rows)
    folder.write_result(document)
    for lacking in tracking.finish(rows, results.values(), document):
        say(f"cospan: warning: {lacking}")
    if not is_resumable(folder):
        with contextlib.suppress(OSError):
            folder.subspace_errors.unlink(missing_ok=True)
    advice = ""
    if os.environ.get("COSPAN_PICTURES") != "0":  # they take most of the CPU time of a small run
        advice = draw_convergence(folder.picture, outcome.specification, rows, list(results.values()))
        advice = advice or draw_sites(folder.sites, outcome.specification, agents)
    if advice and not quiet:
        say(advice)
    if data is not None:
        _print_document(document, data, folder)
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    is_over = outcome.cause == FinishCause.ROUNDS_REACHED.value and not quiet
    lines = summary_lines(outcome, agents, document, folder.path, width=width)
    following = next_commands(folder.path, outcome.specification.workload, agents) if is_over else ()
    show_summary(lines, following, width=width)


def _print_document(document: Mapping[str, Any], data: TextIO, folder: RunFolder) -> None:
    try:
        print(result_text(document), file=data, flush=True)
    except OSError as failure:
        say(f"cospan: cannot write to standard output: {failure.strerror}; the same is in {folder.result}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), data.fileno())  # what is still in its buffer


def _exit_code(outcome: RunOutcome, interrupted: str, folder: RunFolder, *, allow_losses: bool) -> int:
    """0 if all rounds are done, or those until an administrator stopped the run.

    Raises:
        InterruptedRunError: a signal ended the run.
        RunFailedError: the run failed.
        AgentsLostError: it ended with fewer agents than it began with, and that is not allowed.
    """
    spec = outcome.specification
    stopped = outcome.cause == FinishCause.STOPPED.value and not interrupted
    if outcome.cause == FinishCause.ROUNDS_REACHED.value or stopped:
        lost = lost_agents(outcome)
        if lost and not allow_losses:
            raise AgentsLostError(
                f"the run began with {spec.agents} agents and lost {len(lost)} of them: {listed(lost)}; the "
                "summary says why. What was learnt is kept; --allow-losses makes this exit code 0"
            )
        return 0
    of = f" of {spec.rounds}" if spec.rounds else ""
    why = f"it was interrupted by {interrupted}" if interrupted else outcome.message
    kind = InterruptedRunError if interrupted else RunFailedError
    again = f"; resume with: {command_to_resume(folder.path)}" if is_resumable(folder) else ""
    raise kind(
        f"the run ended after {outcome.rounds}{of} rounds: {why}; what was learnt is in {folder.path}{again}"
    )
