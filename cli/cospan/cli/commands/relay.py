"""`cospan relay`: a coordinator to its agents and a group of agents to its own coordinator."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cospan.cli.commands.coordinator import listening_tls
from cospan.cli.output.coordinator_voice import say_note
from cospan.cli.output.exit_codes import INTERRUPTED
from cospan.cli.output.log_lines import log_errors_to_stderr
from cospan.cli.processes.telemetry import MetricsPlan, metrics_plan, serving_metrics
from cospan.cli.processes.this_process import (
    JsonLines,
    LastExit,
    claim_stdout,
    collect_from_now_on,
    keep_freed_memory,
    keep_what_is_loaded,
    on_stop_signal,
    use_one_blas_thread,
)
from cospan.cli.settings.layers import Settings, load_settings
from cospan.core.run_fields import RunFields
from cospan.relay.engine import RelaySettings
from cospan.relay.relay import Relay
from cospan.server.machine.events import EndRun, Note, Suspend
from cospan.wire.address import DEFAULT_PORT
from cospan.wire.console import say
from cospan.wire.errors import CospanError, InvalidValueError
from cospan.wire.files.descriptor_limit import raise_file_limit
from cospan.wire.limits import MAX_GROUP

_STOP_SECONDS = 30.0
"""Bound of an orderly stop: streams above and below take at most 15 s."""


def relay_here(flags: Mapping[str, Any], config: Path | None, *, json: bool) -> int:
    """Relays in this process until the run is over; the exit code.

    Raises:
        CospanError: the relay cannot start or continue.
    """
    collect_from_now_on()
    log_errors_to_stderr()
    lines = JsonLines(claim_stdout(dropping=True)) if json else None
    try:
        settings = load_settings(flags, config)
        relay = _prepared(settings)
        metrics = metrics_plan(settings, settings.tls)
        use_one_blas_thread()
        raise_file_limit()
        keep_what_is_loaded()
        keep_freed_memory()
        last_exit = LastExit()
        try:
            end, stopped = asyncio.run(_serve(relay, metrics, lines, last_exit))
        finally:
            last_exit.over()
    except CospanError as failure:
        if lines is not None:
            lines.emit("failed", reason=failure.reason, message=str(failure), exit_code=failure.exit_code)
        raise
    _say(lines, "finished", end.message)
    return INTERRUPTED if stopped else 0


def _prepared(settings: Settings) -> Relay:
    """The relay of the settings.

    Raises:
        InvalidValueError: no coordinator is named; the certificates cannot be used; or there are none and other
            machines can reach the address.
    """
    if settings.upstream is None:
        raise InvalidValueError("upstream is not set; name the coordinator with --upstream HOST:PORT")
    return Relay(
        settings.upstream,
        host=settings.host,
        port=DEFAULT_PORT if settings.port is None else settings.port,
        tls=listening_tls(settings),
        upstream_tls=settings.upstream_tls,
        insecure=settings.insecure,
        settings=RelaySettings(
            gather_agents=settings.of(RunFields).get("agents", MAX_GROUP),
            level=settings.level,
            progress_timeout_seconds=settings.progress_timeout_seconds,
            min_steps_per_round=settings.min_steps_per_round,
        ),
    )


async def _serve(
    relay: Relay, metrics: MetricsPlan | None, lines: JsonLines | None, last_exit: LastExit
) -> tuple[EndRun | Suspend, bool]:
    """How the relay ended, and whether a signal ended it before the run was over."""
    stopped = False
    starting = asyncio.ensure_future(relay.start())

    def stop(cause: str) -> None:
        nonlocal stopped
        stopped = stopped or not relay.engine.ended.is_set()
        last_exit.due(_STOP_SECONDS, code=INTERRUPTED)
        text = f"the relay was stopped by {cause}"
        if not starting.done():
            starting.cancel()
        elif cause == "SIGINT":  # as for agents: only Ctrl-C means that no restart follows
            relay.stop(text)
        else:
            relay.drain(text)

    on_stop_signal(stop)
    try:
        await starting
    except asyncio.CancelledError:
        return Suspend("it was stopped before the coordinator answered", failed=False), True
    try:
        with contextlib.ExitStack() as beside:
            url = None
            if metrics is not None:
                serving = serving_metrics(metrics, relay.engine, relay.door, relay.agent_stats, closes_rounds=False)
                url = beside.enter_context(serving)
            relay.engine.on_note.append(lambda note: _say_note(lines, note))
            _say_listening(lines, relay, url)
            return await relay.wait(), stopped
    finally:
        await relay.close()


def _say_listening(lines: JsonLines | None, relay: Relay, metrics: str | None) -> None:
    if lines is not None:
        lines.emit("listening", address=relay.address)
        if metrics is not None:
            lines.emit("metrics", url=metrics)
        return
    say(f"cospan relay listens on {relay.address}", error=False)  # the one line that scripts may wait for
    if metrics is not None:
        say(f"metrics are on {metrics}", error=False)


def _say_note(lines: JsonLines | None, note: Note) -> None:
    if lines is None:
        say_note(note)
    else:
        lines.emit("note", kind=note.kind, round=note.round, agents=list(note.agent_ids), message=note.text)


def _say(lines: JsonLines | None, event: str, message: str) -> None:
    if lines is not None:
        lines.emit(event, message=message)
    else:
        say(f"{event}: {message}", error=False)
