"""`cospan coordinator`: the server alone.

Its output is in `cospan.cli.output.coordinator_voice`, its files in `cospan.cli.processes.run_record`.
"""

import asyncio
import contextlib
import secrets
import shlex
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cospan.cli.output.coordinator_voice import JsonVoice, PlainVoice, Voice
from cospan.cli.output.exit_codes import INTERRUPTED
from cospan.cli.output.log_lines import log_errors_to_stderr
from cospan.cli.processes.dashboard import DashboardPlan, DashboardService, plan_dashboard
from cospan.cli.processes.run_record import RunRecord, writing_folder
from cospan.cli.processes.telemetry import MetricsPlan, metrics_plan, serving_metrics, tracing, wants_traces
from cospan.cli.processes.this_process import (
    JsonLines,
    claim_stdout,
    collect_from_now_on,
    keep_freed_memory,
    keep_what_is_loaded,
    on_end_of_stdin,
    on_stop_signal,
    use_one_blas_thread,
)
from cospan.cli.run_folder.layout import (
    RunFolder,
    check_free,
    make_run_folder,
    make_run_folder_in,
    point_to_newest,
    point_to_newest_of,
    write_text,
)
from cospan.cli.run_folder.run_result import RunFailedError, RunOutcome
from cospan.cli.run_folder.stored_run import (
    StoredRun,
    check_same_run,
    run_that_is_over,
    run_to_resume,
)
from cospan.cli.settings.layers import Settings, load_settings
from cospan.cli.settings.run_specification import RunPlan, plan_alone, plan_resumed, plan_with_workload
from cospan.core.specification import RunSpecification
from cospan.server.coordinator import Coordinator
from cospan.server.machine.events import Suspend
from cospan.server.runtime.engine import RETURN_SECONDS
from cospan.server.storage.reader import read_reports
from cospan.server.storage.run_folder import differences
from cospan.server.storage.writer import RunStore, create_store, open_store
from cospan.wire.address import DEFAULT_PORT, is_loopback
from cospan.wire.errors import CospanError, InterruptedRunError, InvalidValueError
from cospan.wire.files.descriptor_limit import raise_file_limit
from cospan.wire.messages import FinishCause
from cospan.wire.security.tls import TlsFiles, check_usable

START_SECONDS = 600.0
_SUSPENDING = ("SIGTERM", "SIGHUP")
"""After these signals agents are asked to reconnect later; after Ctrl-C they are told that the run is over."""


@dataclass(frozen=True, slots=True)
class CoordinatorOptions:
    """Options of `cospan coordinator` that are not settings."""

    workload: str | None
    spec: Path | None
    run_folder: Path | None
    runs_folder: Path | None = None
    json: bool = False
    follow_stdin: bool = False
    reopen: bool = False


def serve_here(chosen: CoordinatorOptions, flags: Mapping[str, Any], config: Path | None) -> int:
    """Serves one run in this process until it is over; the exit code.

    Raises:
        CospanError: the run cannot start, or failed.
    """
    collect_from_now_on()
    log_errors_to_stderr()
    if chosen.run_folder is not None and chosen.runs_folder is not None:
        raise InvalidValueError("--run-folder and --runs-folder are mutually exclusive")
    voice: Voice = JsonVoice(JsonLines(claim_stdout(dropping=True))) if chosen.json else PlainVoice()
    try:
        settings = load_settings(flags, config)
        new_run = settings.new_run
        if settings.once and not new_run and _is_over(chosen, flags, config):
            return 0
        stored = run_to_resume(chosen.run_folder, chosen.runs_folder, new_run=new_run, reopen=chosen.reopen)
        plan = _plan(chosen, flags, config, stored)
        plan.close()  # agents make the sites; this one gave its features
        tls = None if chosen.follow_stdin else listening_tls(plan.settings)  # `cospan run` is local, without TLS
        shown = Shown(metrics_plan(plan.settings, tls), wants_traces(plan.settings))
        dashboard = plan_dashboard(plan.settings, tls)
        claimed = chosen.follow_stdin  # by the parent
        if chosen.run_folder is not None and stored is None and not claimed:
            check_free(chosen.run_folder)
        use_one_blas_thread()
        raise_file_limit()
        if not chosen.follow_stdin and stored is None:  # otherwise it has been said
            _advise(plan)
        keep_what_is_loaded()
        keep_freed_memory()
        return _exit_code(asyncio.run(_serve(plan, chosen, stored, tls, shown, dashboard, voice)), chosen)
    except CospanError as failure:
        voice.failed(failure)
        raise


def _is_over(chosen: CoordinatorOptions, flags: Mapping[str, Any], config: Path | None) -> bool:
    """Whether the run that is asked for is already over; prints why."""
    over = run_that_is_over(chosen.run_folder, chosen.runs_folder)
    if over is None:
        return False
    if _asks_for(chosen, flags):
        held = over.state.specification
        if differences(held, _asked(chosen, flags, config, held).specification):
            return False
    state = over.state
    print(
        f"run {state.run_id} in {over.folder.path} is over after {state.rounds} rounds ({state.finish_message}); "
        "nothing is left to do: name another folder, or leave out --once (COSPAN_ONCE=false) for a new run",
        file=sys.stderr,
        flush=True,
    )
    return True


def _asks_for(chosen: CoordinatorOptions, flags: Mapping[str, Any]) -> bool:
    """Whether a specification is given."""
    return chosen.workload is not None or chosen.spec is not None or "feature_dim" in flags


def _plan(
    chosen: CoordinatorOptions, flags: Mapping[str, Any], config: Path | None, stored: StoredRun | None
) -> RunPlan:
    """The run that is asked for; a stored run needs no specification, and a given one must be equal."""
    if stored is not None and not _asks_for(chosen, flags):
        return RunPlan(stored.state.specification, load_settings(flags, config))
    plan = _asked(chosen, flags, config, None if stored is None else stored.state.specification)
    if stored is not None:
        check_same_run(stored, plan.specification)
    return plan


def _asked(
    chosen: CoordinatorOptions, flags: Mapping[str, Any], config: Path | None, held: RunSpecification | None
) -> RunPlan:
    """The plan of workload, specification file and settings; `held` of a stored run saves loading the workload."""
    if chosen.workload is None:
        return plan_alone(flags, config, spec_file=chosen.spec, rounds=0)
    if "feature_dim" in flags or "fingerprint" in flags:
        raise InvalidValueError(
            f"--workload {chosen.workload} knows its features; leave out --feature-dim and --fingerprint"
        )
    if held is None:
        return plan_with_workload(flags, config, reference=chosen.workload, spec_file=chosen.spec, rounds=0)
    return plan_resumed(held, flags, config, reference=chosen.workload, spec_file=chosen.spec, rounds=0)


def _advise(plan: RunPlan) -> None:
    """Prints warnings about a new run."""
    from cospan.cli.settings.run_warnings import advise, of_agents, of_features, of_rank

    spec = plan.specification
    of_site = [] if plan.site is None else of_features(spec, plan.site)
    advise([*of_rank(spec), *of_site, *of_agents(spec.agents)])


def _sites(plan: RunPlan, chosen: CoordinatorOptions) -> int | Callable[[], int | None] | None:
    """The number of sites to assign; a workload that is not loaded is asked when an agent needs a site."""
    if plan.workload is not None:
        return plan.workload.max_agents
    reference = chosen.workload
    if reference is None:
        return None

    def count() -> int | None:
        from cospan.client.environment.workload_loader import load_workload

        return load_workload(reference).max_agents

    return count


def listening_tls(settings: Settings) -> TlsFiles | None:
    """The certificates to listen with, checked; None for no TLS.

    Raises:
        InvalidValueError: they cannot be used; or there are none and other machines can reach the address.
        CertificateExpiredError: the own certificate is not valid now.
    """
    tls = settings.tls
    if tls is not None:
        check_usable(tls, time.time())
    elif not is_loopback(settings.host) and not settings.insecure:
        raise InvalidValueError(
            f"host is {settings.host}, which other machines can reach, and there is no TLS; give --tls-cert, "
            "--tls-key and --tls-ca, listen on 127.0.0.1, or give --insecure if the network is trusted"
        )
    return tls


@dataclass(frozen=True, slots=True)
class Shown:
    """Metrics and traces of a coordinator."""

    metrics: MetricsPlan | None = None
    traces: bool = False

    @contextlib.contextmanager
    def beside(self, coordinator: Coordinator) -> Iterator[str | None]:
        """Exports metrics and traces while a coordinator serves; the URL of the metrics, or None.

        Raises:
            InvalidValueError: the address of the metrics cannot be bound.
        """
        with contextlib.ExitStack() as stack:
            if self.traces:
                stack.enter_context(tracing(coordinator.engine))
            if self.metrics is None:
                yield None
            else:
                yield stack.enter_context(
                    serving_metrics(self.metrics, coordinator.engine, coordinator.door, coordinator.agent_stats)
                )


@dataclass(frozen=True, slots=True)
class Ending:
    """How a coordinator's part in a run ended.

    Attributes:
        outcome: of the run; None if it can be resumed.
        interrupted: whether a signal ended it.
        suspended: why agents were asked to reconnect later, or None.
        folder: of the run, or None.
    """

    outcome: RunOutcome | None
    interrupted: bool
    suspended: Suspend | None = None
    folder: RunFolder | None = None


def _exit_code(ending: Ending, chosen: CoordinatorOptions) -> int:
    """0 if all rounds are done or the run was stopped.

    Raises:
        InterruptedRunError: a signal ended it.
        RunFailedError: the run failed.
    """
    outcome, suspended = ending.outcome, ending.suspended
    if suspended is not None and suspended.failed:
        raise RunFailedError(f"the run was left as it was stored: {suspended.message}")
    if suspended is not None or ending.interrupted:
        if chosen.follow_stdin:  # the parent prints it
            return INTERRUPTED
        raise InterruptedRunError(_interrupted(ending, chosen))
    assert outcome is not None
    if outcome.cause in (FinishCause.ROUNDS_REACHED.value, FinishCause.STOPPED.value):
        return 0
    raise RunFailedError(f"the run ended after {outcome.rounds} rounds: {outcome.message}")


def _interrupted(ending: Ending, chosen: CoordinatorOptions) -> str:
    """A sentence on an interrupted run and how to resume it."""
    suspended, outcome = ending.suspended, ending.outcome
    if suspended is not None:
        text = f"the run is not over: {suspended.message}"
    else:
        assert outcome is not None
        text = f"the run ended after {outcome.rounds} rounds: {outcome.message}"
    if ending.folder is None:
        return f"{text}; without a run folder it cannot be resumed"
    told = ("--runs-folder", chosen.runs_folder) if chosen.runs_folder else ("--run-folder", ending.folder.path)
    return f"{text}; resume with: cospan coordinator {told[0]} {shlex.quote(str(told[1]))}"


# Serving --------------------------------------------------------------------------------------------------------


async def _serve(
    plan: RunPlan,
    chosen: CoordinatorOptions,
    stored: StoredRun | None,
    tls: TlsFiles | None,
    shown: Shown,
    dashboard: DashboardPlan | None,
    voice: Voice,
) -> Ending:
    """Serves the run until it is over, or until it is suspended."""
    folder = _folder(chosen, plan.specification.workload) if stored is None else stored.folder
    coordinator = _coordinator(plan, chosen, folder, tls, resumed=stored is not None)
    record = RunRecord(coordinator, voice)
    observers = DashboardService(coordinator, dashboard, () if folder is None else read_reports(folder.store))
    _handle_signals(coordinator, observers, chosen)
    async with contextlib.AsyncExitStack() as stack:
        metrics, address = await stack.enter_async_context(
            _listening(coordinator, shown, observers, folder, is_new=stored is None)
        )
        if folder is not None:
            if chosen.runs_folder is not None:
                point_to_newest(folder)
            elif not chosen.follow_stdin:
                point_to_newest_of(folder)
            await stack.enter_async_context(writing_folder(record, folder))
        if plan.settings.address_file is not None:
            write_text(Path(plan.settings.address_file), f"{coordinator.address}\n")
        voice.listening(coordinator.address, plan.specification.agents)
        if metrics is not None:
            voice.metrics(metrics)
        if address is not None:
            voice.dashboard(address)
        if stored is not None:
            voice.resumed(stored)
        await coordinator.wait()
        outcome = record.outcome()
        if outcome is not None:
            voice.finished(outcome)
    if folder is not None:
        record.add_stored(folder)
        folder.release()
    end = coordinator.engine.end
    suspended = end if isinstance(end, Suspend) else None
    return Ending(record.outcome(), coordinator.interrupted, suspended, folder)


def _coordinator(
    plan: RunPlan, chosen: CoordinatorOptions, folder: RunFolder | None, tls: TlsFiles | None, *, resumed: bool
) -> Coordinator:
    """The coordinator of the settings, which does not listen yet."""
    settings, spec = plan.settings, plan.specification
    start_seconds = START_SECONDS if settings.start_seconds is None else settings.start_seconds
    return Coordinator(
        spec,
        host=settings.host,
        port=DEFAULT_PORT if settings.port is None else settings.port,
        start_seconds=start_seconds,
        return_seconds=start_seconds if chosen.follow_stdin else RETURN_SECONDS,  # the parent starts all agents
        sites=_sites(plan, chosen),
        store=_store(folder, spec, chosen, resumed=resumed, checkpoint_interval=settings.checkpoint_interval),
        tls=tls,
        insecure=settings.insecure,
    )


def _handle_signals(coordinator: Coordinator, observers: DashboardService, chosen: CoordinatorOptions) -> None:
    """Lets signals, and the end of a parent's standard input, end or suspend the run."""

    def stop(cause: str) -> None:
        if cause in _SUSPENDING and not chosen.follow_stdin:
            coordinator.drain(f"the coordinator was stopped by {cause}")
        else:
            coordinator.interrupt(f"the coordinator was stopped by {cause}")

    on_stop_signal(stop)
    if chosen.follow_stdin:
        on_end_of_stdin(stop, observers.tell)


def _folder(chosen: CoordinatorOptions, workload: str) -> RunFolder | None:
    if chosen.follow_stdin and chosen.run_folder is not None:
        return RunFolder(chosen.run_folder)  # made and claimed by the parent
    if chosen.runs_folder is not None:
        return make_run_folder_in(chosen.runs_folder, workload=workload)
    return None if chosen.run_folder is None else make_run_folder(chosen.run_folder, workload=workload)


def _store(
    folder: RunFolder | None,
    spec: RunSpecification,
    chosen: CoordinatorOptions,
    *,
    resumed: bool,
    checkpoint_interval: int,
) -> RunStore | None:
    if folder is None:
        return None
    if resumed:
        return open_store(folder.store, checkpoint_interval=checkpoint_interval, reopen=chosen.reopen)
    try:
        return create_store(
            folder.store, spec, run_id=secrets.token_hex(8), checkpoint_interval=checkpoint_interval
        )
    except BaseException:
        folder.discard_empty()  # its content belongs to another coordinator, which was faster
        raise


@contextlib.asynccontextmanager
async def _listening(
    coordinator: Coordinator, shown: Shown, observers: DashboardService, folder: RunFolder | None, *, is_new: bool
) -> AsyncIterator[tuple[str | None, str | None]]:
    """A listening coordinator: the addresses of its metrics and of its dashboard.

    If it cannot listen, the folder of a new run is removed.
    """
    async with contextlib.AsyncExitStack() as beside:
        try:
            metrics = beside.enter_context(shown.beside(coordinator))
            await coordinator.start()
            dashboard = await beside.enter_async_context(observers.serving())
        except BaseException:
            await coordinator.close()
            if folder is not None and is_new:
                folder.discard()
            raise
        try:
            yield metrics, dashboard
        finally:
            await coordinator.close()
