"""`cospan coordinator`: the server alone, what it prints, and what it writes down."""

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cospan.cli.advice import advise, of_features, of_rank
from cospan.cli.log_lines import log_errors_to_stderr, log_to_file, stop_logging
from cospan.cli.outcome import RunFailedError, RunOutcome, outcome_of_state, result_document
from cospan.cli.process import (
    JsonLines,
    claim_stdout,
    keep_what_is_loaded,
    on_end_of_stdin,
    on_stop_signal,
    use_one_blas_thread,
)
from cospan.cli.recorder import RoundsFile, row_of
from cospan.cli.run_folder import RunFolder, check_free, make_newest_run_folder, make_run_folder
from cospan.cli.specifying import RunPlan, plan_alone, plan_with_workload
from cospan.core.specification import RunSpecification
from cospan.server.events import Note, ReportRound
from cospan.server.host import Coordinator
from cospan.server.state import CoordinatorState
from cospan.wire.errors import CospanError, InvalidValueError
from cospan.wire.messages import FinishCause, RoundReport

DEFAULT_PORT = 50051
START_SECONDS = 600.0
_JSON_ROUND_SECONDS = 0.25
_PLAIN_ROUND_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CoordinatorOptions:
    """What is said of one coordinator only, beside the settings."""

    workload: str | None
    spec: Path | None
    run_folder: Path | None
    runs_folder: Path | None = None
    json: bool = False
    follow_stdin: bool = False


def serve_here(chosen: CoordinatorOptions, flags: Mapping[str, Any], config: Path | None) -> int:
    """Serves one run in this process until it is over; the exit code.

    Raises:
        CospanError: it cannot begin, or did not reach its end.
    """
    log_errors_to_stderr()
    if chosen.run_folder is not None and chosen.runs_folder is not None:
        raise InvalidValueError("--run-folder and --runs-folder are both said; leave out one")
    voice: Voice = JsonVoice(JsonLines(claim_stdout())) if chosen.json else PlainVoice()
    try:
        plan = _plan(chosen, flags, config)
        _check_address(plan)
        if chosen.run_folder is not None:
            check_free(chosen.run_folder)
        use_one_blas_thread()
        if not chosen.follow_stdin:  # else `cospan run` has said it
            advise([*of_rank(plan.specification), *_of_features(plan)])
        keep_what_is_loaded()
        outcome, asked = asyncio.run(_serve(plan, chosen, voice))
        return _exit_code(outcome, asked_to_stop=asked)
    except CospanError as failure:
        voice.failed(failure)
        raise


def _plan(chosen: CoordinatorOptions, flags: Mapping[str, Any], config: Path | None) -> RunPlan:
    if chosen.workload is None:
        return plan_alone(flags, config, spec_file=chosen.spec, rounds=0)
    if "feature_dim" in flags or "fingerprint" in flags:
        raise InvalidValueError(
            f"--workload {chosen.workload} knows its features; leave out --feature-dim and --fingerprint"
        )
    return plan_with_workload(flags, config, reference=chosen.workload, spec_file=chosen.spec, rounds=0)


def _of_features(plan: RunPlan) -> list[str]:
    return [] if plan.site is None else of_features(plan.specification, plan.site)


def _check_address(plan: RunPlan) -> None:
    host = plan.settings.host
    if not is_loopback(host) and not plan.settings.insecure:
        raise InvalidValueError(
            f"host is {host}, which other machines can reach, and there is no TLS yet; "
            "listen on 127.0.0.1, or say --insecure where the network is trusted"
        )


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _exit_code(outcome: RunOutcome, *, asked_to_stop: bool) -> int:
    """0 where the run did what was asked for.

    Raises:
        RunFailedError: it did not.
    """
    if outcome.cause == FinishCause.ROUNDS_REACHED.value or (asked_to_stop and outcome.specification.rounds == 0):
        return 0
    raise RunFailedError(f"the run ended after {outcome.rounds} rounds: {outcome.message}")


# Serving --------------------------------------------------------------------------------------------------------


async def _serve(plan: RunPlan, chosen: CoordinatorOptions, voice: "Voice") -> tuple[RunOutcome, bool]:
    """How the run ended, and whether somebody asked for that."""
    settings, spec = plan.settings, plan.specification
    coordinator = Coordinator(
        spec,
        host=settings.host,
        port=DEFAULT_PORT if settings.port is None else settings.port,
        start_seconds=START_SECONDS if settings.start_seconds is None else settings.start_seconds,
        sites=plan.workload.max_agents if plan.workload is not None else None,
    )
    register = Register(coordinator, voice)
    asked: list[str] = []

    def stop(cause: str) -> None:
        asked.append(cause)
        coordinator.stop(f"the coordinator was stopped by {cause}")

    on_stop_signal(stop)
    if chosen.follow_stdin:
        on_end_of_stdin(stop)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(coordinator)
        folder = _folder(chosen, spec.workload)
        if folder is not None:
            await stack.enter_async_context(_writing(register, folder))
        voice.listening(coordinator.address, spec.agents)
        await coordinator.wait()
        voice.finished(register.outcome())
    return register.outcome(), bool(asked)


def _folder(chosen: CoordinatorOptions, workload: str) -> RunFolder | None:
    if chosen.runs_folder is not None:
        return make_newest_run_folder(chosen.runs_folder, workload=workload)
    return None if chosen.run_folder is None else make_run_folder(chosen.run_folder, workload=workload)


class Register:
    """What is kept of a run's course: the seconds of its rounds, and the machine's state when it finished."""

    def __init__(self, coordinator: Coordinator, voice: "Voice") -> None:
        self.rounds_file: RoundsFile | None = None
        self._engine, self._voice, self._seconds = coordinator.engine, voice, 0.0
        self._end: tuple[CoordinatorState, str] | None = None
        self._engine.on_round.append(self._on_round)
        self._engine.on_note.append(self._on_note)

    def _on_round(self, command: ReportRound) -> None:
        self._seconds += command.report.seconds
        if self.rounds_file is not None:
            self.rounds_file.add(row_of(command.report))
        self._voice.round(command.report)

    def _on_note(self, note: Note) -> None:
        if note.kind == "run-finished":
            self._end = (self._engine.state, note.text)
        else:
            self._voice.note(note)

    @property
    def specification(self) -> RunSpecification:
        """Of the run; its fingerprint may be fixed by the first agent."""
        return self._engine.state.specification

    def outcome(self) -> RunOutcome:
        """How the run ended; call it after it has."""
        assert self._end is not None
        state, message = self._end
        return outcome_of_state(state, message=message, seconds=self._seconds)


@contextlib.asynccontextmanager
async def _writing(register: Register, folder: RunFolder) -> AsyncIterator[None]:
    """Keeps the run folder while the run goes on, and completes it when it is over."""
    handler = log_to_file(folder.log)
    folder.write_spec(register.specification)
    register.rounds_file = RoundsFile(folder.rounds)
    writer = asyncio.create_task(register.rounds_file.keep_writing())
    try:
        yield
        outcome = register.outcome()
        folder.write_spec(outcome.specification)
        assert outcome.basis is not None
        folder.write_basis(outcome.basis, run_id=outcome.run_id, rounds=outcome.rounds)
        folder.write_result(result_document(outcome))
    finally:
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writer
        register.rounds_file.flush()
        stop_logging(handler)


# What it says ---------------------------------------------------------------------------------------------------


class Voice(Protocol):
    """How a coordinator speaks to whoever started it."""

    def listening(self, address: str, agents: int) -> None:
        """It can be joined."""

    def note(self, note: Note) -> None:
        """Something happened to the fleet."""

    def round(self, report: RoundReport) -> None:
        """A round has closed."""

    def finished(self, outcome: RunOutcome) -> None:
        """The run is over."""

    def failed(self, failure: CospanError) -> None:
        """There is no run, or it did not end as it should."""


class PlainVoice:
    """Lines for people."""

    def __init__(self) -> None:
        self._due = 0.0

    def listening(self, address: str, agents: int) -> None:
        """The one line that scripts may wait for."""
        print(f"cospan coordinator listens on {address}, waiting for {agents} agents", flush=True)

    def note(self, note: Note) -> None:
        """Who came and went."""
        words = (note.kind.replace("-", " "), ", ".join(note.agent_ids[:10]), note.text)
        print(f"round {note.round}: " + ": ".join(word for word in words if word), flush=True)

    def round(self, report: RoundReport) -> None:
        """One line every few seconds."""
        now = time.monotonic()
        if now >= self._due or report.finished:
            self._due = now + _PLAIN_ROUND_SECONDS
            print(
                f"round {report.closed_round} closed: {report.contributors} agents, "
                f"basis moved by {report.basis_movement:.3g}",
                flush=True,
            )

    def finished(self, outcome: RunOutcome) -> None:
        """Why it is over."""
        print(f"finished after {outcome.rounds} rounds: {outcome.message}", flush=True)

    def failed(self, failure: CospanError) -> None:
        """`main` says it."""


class JsonVoice:
    """JSON lines for programs."""

    def __init__(self, lines: JsonLines) -> None:
        self._lines, self._due = lines, 0.0

    def listening(self, address: str, agents: int) -> None:
        """With the real port, where 0 was asked for."""
        self._lines.emit("listening", address=address, agents=agents)

    def note(self, note: Note) -> None:
        """The event is the note's kind: run-started, agent-joined, agent-lost, agent-back, agent-gone."""
        self._lines.emit(note.kind, round=note.round, agents=list(note.agent_ids), message=note.text)

    def round(self, report: RoundReport) -> None:
        """At most four a second."""
        now = time.monotonic()
        if now >= self._due or report.finished:
            self._due = now + _JSON_ROUND_SECONDS
            self._lines.emit(
                "round",
                round=report.closed_round,
                seconds=report.seconds,
                contributors=report.contributors,
                basis_movement=report.basis_movement,
            )

    def finished(self, outcome: RunOutcome) -> None:
        """With the numbers of result.json that a coordinator knows."""
        document = result_document(outcome)
        keys = ("finish_cause", "message", "rounds", "seconds", "basis_sha256", "departures", "run_id")
        self._lines.emit("finished", **{key: document[key] for key in keys})

    def failed(self, failure: CospanError) -> None:
        """Why, and with which exit code the process ends."""
        self._lines.emit("failed", reason=failure.reason, message=str(failure), exit_code=failure.exit_code)
