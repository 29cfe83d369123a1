"""`cospan agent`: one agent or a group of them, what it prints, and the files it leaves."""

import asyncio
import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cospan.cli.output.exit_codes import INTERRUPTED
from cospan.cli.output.log_lines import log_errors_to_stderr, log_warnings_to_stderr
from cospan.cli.processes.this_process import (
    KEPT_BY_AN_AGENT,
    JsonLines,
    LastExit,
    claim_stdout,
    collect_from_now_on,
    keep_freed_memory,
    keep_what_is_loaded,
    on_end_of_stdin,
    on_stop_signal,
    use_one_blas_thread,
)
from cospan.cli.run_folder.progress_log import AgentProgress
from cospan.client.agent import Agent, default_agent_id
from cospan.client.files.result_file import OWNED, load_result
from cospan.client.learning.site_learner import FAILED, Warned
from cospan.client.session.learning_session import AgentEnd
from cospan.client.session.message_checks import MEMORY_GIB
from cospan.client.session.settings import ClientSettings
from cospan.client.step_source import AT_END
from cospan.wire.console import say
from cospan.wire.errors import CospanError, InvalidValueError, RunFileError
from cospan.wire.files.descriptor_limit import raise_file_limit
from cospan.wire.files.safe_files import check_regular
from cospan.wire.security.tls import TlsFiles

if TYPE_CHECKING:
    from cospan.cli.feeds.opening import FeedOptions
    from cospan.client.group import AgentGroup  # which takes time to import, and few agents need

_MEMBERS = "cospan.client.session.masking"
"""Warns of who leaves a secure sum: the sums before and after differ by the upload of that agent."""
_JSON_SECONDS = 1.0
_PLAIN_SECONDS = 5.0
_PARENT_GONE_SECONDS = 1.0
"""Wait of an agent of `cospan run` before it stops, in which the coordinator, which is told too, ends the run."""

_STOP_SECONDS = 20.0
"""Bound of an orderly stop: last messages, round and streams take at most 15 s."""
_EXIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """Options of `cospan agent` that are not settings."""

    workload: str
    agent_id: str | None
    sticky_site: bool
    output: Path | None
    resume: Path | None
    json: bool = False
    follow_stdin: bool = False
    feed: "FeedOptions | None" = None


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """The fields of `cospan.cli.settings.layers.Settings` that an agent needs."""

    coordinator: str
    progress_timeout_seconds: float
    baseline: bool | None
    index: int | None
    ids: str | None
    shard: str | None
    agents: int | None
    checkpoint_seconds: float
    share_td_error: bool
    min_steps_per_round: int
    require_secure_sums: bool
    max_epsilon: float | None
    memory_gib: float
    tls: TlsFiles | None


def take_part(chosen: AgentOptions, flags: Mapping[str, Any], config: Path | None) -> int:
    """Takes part in a run until it is over; the exit code.

    Raises:
        CospanError: the agent cannot start, or failed.
    """
    collect_from_now_on()
    log_errors_to_stderr()
    if not chosen.follow_stdin:
        log_warnings_to_stderr(_MEMBERS)
    lines = JsonLines(claim_stdout(dropping=True)) if chosen.json else None
    raise_file_limit()
    agent: Agent | AgentGroup | None = None
    try:
        settings = _settings(chosen, flags, config)
        agent = _prepared(chosen, settings)
        agent.on_round.append(Reporter(lines))
        agent.on_note.append(partial(_say, lines))
        agent.on_warning.append(partial(_warn, lines))
        use_one_blas_thread()
        keep_what_is_loaded()
        keep_freed_memory(KEPT_BY_AN_AGENT)
        last_exit = LastExit(partial(getattr, agent, "is_writing"))
        try:
            with _feeding(chosen, agent, lines):
                end = asyncio.run(_run(agent, settings, lines, last_exit, follow_stdin=chosen.follow_stdin))
        finally:
            last_exit.over()
    except CospanError as failure:
        if lines is not None:
            _emit_failure(agent, failure, lines)
        raise
    _say_end(agent, end, lines)
    return _exit_code(end)


@contextlib.contextmanager
def _feeding(chosen: AgentOptions, agent: "Agent | AgentGroup", lines: JsonLines | None) -> Iterator[None]:
    """Takes the steps of --feed meanwhile."""
    if chosen.feed is None:
        yield
        return
    from cospan.cli.feeds.opening import opened

    assert isinstance(agent, Agent)
    feed = agent.feed

    def report(text: str) -> None:
        if lines is None:
            say(f"cospan: warning: {text}")
        else:
            lines.emit("warning", agent=agent.name, kind="feed", message=text)

    with opened(chosen.feed, feed, report) as place:
        status = feed.status()
        if lines is None:
            behind = "" if status.newest is None else f", from step {feed.next_sequence} on; {status.held} are held"
            say(f"{agent.name}: takes steps from {place}{behind}", error=False)
        else:
            lines.emit("feed", agent=agent.name, place=place, next=feed.next_sequence, held=status.held)
        yield


def _exit_code(end: AgentEnd) -> int:
    """75 if the agent was stopped before the run was over, else 0."""
    return INTERRUPTED if end.left else 0


def identity(agent_id: str | None, index: int | None) -> tuple[str | None, int | None]:
    """The agent's name and the index of its site, one derived from the other if only one is given.

    Raises:
        InvalidValueError: there is no index, and the name does not end in digits.
    """
    if agent_id is None:
        return (None, None) if index is None else (default_agent_id(index), index)
    name = default_agent_id(int(agent_id)) if re.fullmatch(r"[0-9]{1,9}", agent_id) else agent_id
    if index is not None:
        return name, index
    digits = re.search(r"[0-9]{1,9}$", name)
    if digits is None:
        raise InvalidValueError(f"agent id {name!r} does not end in a number; give its site with --index")
    return name, int(digits.group())


def _settings(chosen: AgentOptions, flags: Mapping[str, Any], config: Path | None) -> AgentSettings:
    """The settings of all layers; a child of `cospan run` has them on its command line, checked by the parent.

    To read all layers again would take a fifth of the time in which an agent starts.
    """
    if chosen.follow_stdin:
        return AgentSettings(
            coordinator=flags["coordinator"],
            progress_timeout_seconds=float(flags["progress_timeout_seconds"]),
            baseline=flags.get("baseline"),
            index=int(flags["index"]) if "index" in flags else None,
            ids=flags.get("ids"),
            shard=None,
            agents=None,
            checkpoint_seconds=float(flags["checkpoint_seconds"]),
            share_td_error=bool(flags.get("share_td_error", False)),
            min_steps_per_round=int(flags["min_steps_per_round"]),
            require_secure_sums=False,  # its coordinator is of the same command
            max_epsilon=None,
            memory_gib=float(flags.get("memory_gib", MEMORY_GIB)),
            tls=None,
        )
    from cospan.cli.settings.layers import load_settings

    settings = load_settings(flags, config)
    return AgentSettings(**{field.name: getattr(settings, field.name) for field in fields(AgentSettings)})


def _prepared(chosen: AgentOptions, settings: AgentSettings) -> "Agent | AgentGroup":
    sites = _sites(chosen, settings)
    if sites is not None and (len(sites) > 1 or settings.shard is None):
        return _group(chosen, settings, sites)
    # A shard of one site is that agent alone.
    name, index = identity(chosen.agent_id, settings.index if sites is None else sites[0])
    if chosen.sticky_site and index is not None:
        raise InvalidValueError(f"--sticky-site asks for a free site, and site {index} is given; leave out one")
    if chosen.output is not None:
        _check_writable(chosen.output)
    if chosen.resume is not None:
        load_result(chosen.resume, names=OWNED)  # its run is checked after joining
    if chosen.feed is not None:
        from cospan.cli.feeds.opening import place_of

        place_of(chosen.feed)
    return Agent(
        chosen.workload,
        index=index,
        coordinator=settings.coordinator,
        agent_id=name,
        site_claim_id=socket.gethostname()[:64] if chosen.sticky_site else None,
        tls=settings.tls,
        settings=_client_settings(chosen, settings, baseline=settings.baseline is not False),
        feed=None if chosen.feed is None else chosen.feed.settings,
    )


def _sites(chosen: AgentOptions, settings: AgentSettings) -> Sequence[int] | None:
    """The sites of --ids or --shard; None where neither is given.

    Raises:
        InvalidValueError: one of them is not as it must be, or comes beside another option that names sites.
    """
    said = "--ids" if settings.ids is not None else "--shard"
    text = settings.shard if settings.ids is None else settings.ids
    if text is None:
        return None
    if settings.ids is not None and settings.shard is not None:
        raise InvalidValueError(f"--ids {settings.ids} and --shard {settings.shard} both name sites; leave out one")
    if chosen.feed is not None:
        raise InvalidValueError(f"--feed is of one site, and {said} names {text}; start an agent for each of them")
    if chosen.agent_id is not None or settings.index is not None or chosen.sticky_site:
        raise InvalidValueError(f"{said} names the sites {text}; leave out --id, --index and --sticky-site")
    if settings.ids is not None:
        from cospan.client.group import indices_of

        return indices_of(text)
    from cospan.client.shard import sites_of_shard

    if not settings.agents:
        raise InvalidValueError(f"--shard {text} divides the fleet; say how many agents it has with --agents")
    return sites_of_shard(text, settings.agents)


def _group(chosen: AgentOptions, settings: AgentSettings, sites: Sequence[int]) -> "AgentGroup":
    from cospan.client.files.group_file import load_group_owner
    from cospan.client.group import AgentGroup

    if chosen.resume is not None:
        load_group_owner(chosen.resume)  # its run is checked after joining
    group = AgentGroup(
        chosen.workload,
        sites,
        coordinator=settings.coordinator,
        tls=settings.tls,
        settings=_client_settings(chosen, settings, baseline=settings.baseline is True),
    )
    if chosen.output is not None:
        _check_writable(chosen.output)
    return group


def _client_settings(chosen: AgentOptions, settings: AgentSettings, *, baseline: bool) -> ClientSettings:
    return ClientSettings(
        progress_timeout_seconds=settings.progress_timeout_seconds,
        with_baseline=baseline,
        resume_from=chosen.resume,
        state_file=chosen.output,
        checkpoint_seconds=settings.checkpoint_seconds,
        share_td_error=settings.share_td_error,
        min_steps_per_round=settings.min_steps_per_round,
        require_secure_sums=settings.require_secure_sums,
        max_epsilon=settings.max_epsilon,
        memory_gib=settings.memory_gib,
    )


def _check_writable(output: Path) -> None:
    folder = output if output.is_dir() else output.parent
    try:
        folder.resolve(strict=True)  # fails in a deleted working folder
        if not output.is_dir():
            check_regular(output)
    except OSError as failure:
        raise RunFileError(f"cannot write {output}: {failure.strerror}; name another file") from failure
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise RunFileError(f"cannot write {output}; name a file in a folder that exists and can be written to")


async def _run(
    agent: "Agent | AgentGroup",
    settings: AgentSettings,
    lines: JsonLines | None,
    last_exit: LastExit,
    *,
    follow_stdin: bool,
) -> AgentEnd:
    def stop(cause: str) -> None:
        last_exit.due(_STOP_SECONDS, code=INTERRUPTED)
        # After signals other than Ctrl-C the agent is expected to be started again.
        agent.stop(f"it was stopped by {cause}", returning=cause != "SIGINT")

    def stop_later(cause: str) -> None:
        # The open round would close without the agent that leaves first; the coordinator is told to end as well.
        wait = _PARENT_GONE_SECONDS if agent.is_awaited else 0.0
        asyncio.get_running_loop().call_later(wait, stop, cause)

    on_stop_signal(stop_later if follow_stdin else stop)
    if follow_stdin:
        on_end_of_stdin(stop_later)
    else:
        asyncio.get_running_loop().call_later(_PLAIN_SECONDS, say_unanswered, agent, settings, lines)
    try:
        end = await agent.run_async()
    except CospanError as failure:
        last_exit.due(_EXIT_SECONDS, failure.exit_code, partial(_say_failure, agent, failure, lines))
        raise
    last_exit.due(_EXIT_SECONDS, _exit_code(end), partial(_say_end, agent, end, lines))
    return end


def say_unanswered(agent: "Agent | AgentGroup", settings: AgentSettings, lines: JsonLines | None) -> None:
    """Tells where the agent waits, if no coordinator has answered by now: it may wait for minutes."""
    if agent.is_unanswered:
        note = (
            f"the coordinator at {settings.coordinator} has not answered yet; it is asked again for up to "
            f"{settings.progress_timeout_seconds:g} s (--progress-timeout-seconds)"
        )
        _say(lines, agent, note)


class Reporter:
    """Reports progress every few seconds; called by the learning thread."""

    def __init__(self, lines: JsonLines | None) -> None:
        self._lines, self._due = lines, 0.0

    def __call__(self, agent: "Agent | AgentGroup", round_number: int) -> None:
        """Called after each round."""
        now = time.monotonic()
        if now < self._due or agent.learner is None:
            return
        self._due = now + (_PLAIN_SECONDS if self._lines is None else _JSON_SECONDS)
        progress = AgentProgress.of_learner(agent.learner, agent.learning_seconds)
        if self._lines is None:
            say(f"{agent.name}: round {round_number}, {words(progress)}", error=False)
        else:
            self._lines.emit("progress", round=round_number, **progress.as_document())


def _say(lines: JsonLines | None, agent: "Agent | AgentGroup", note: str) -> None:
    """Reports a note; called by the learning thread."""
    if lines is None:
        say(f"{agent.name}: {note}", error=False)
    else:
        lines.emit("note", agent=agent.name, message=note, exact=agent.is_exact)


def _warn(lines: JsonLines | None, agent: "Agent | AgentGroup", warning: Warned) -> None:
    """Reports a warning, or an agent that failed in a group; called by the learning thread."""
    failed = warning.kind == FAILED
    if lines is not None:
        event = "agent-failed" if failed else "warning"
        lines.emit(event, agent=warning.agent, kind=warning.kind, message=warning.text)
    elif failed:
        say(f"{warning.agent} failed, and {agent.name} learns on without it: {warning.text}")
    elif warning.kind == AT_END:
        say(warning.text, error=False)
    else:
        say(f"cospan: warning: {warning.text}")


def words(progress: AgentProgress) -> str:
    """The known numbers, each with its name."""
    parts = (
        ("mean reward", progress.mean_reward),
        ("value error", progress.value_error),
        ("LSTD alone", progress.lstd_alone_error),
        ("TD alone", progress.td_alone_error),
    )
    return ", ".join(f"{name} {value:.4g}" for name, value in parts if value is not None)


def _emit_failure(agent: "Agent | AgentGroup | None", failure: CospanError, lines: JsonLines) -> None:
    rounds = 0 if agent is None or agent.learner is None else agent.learner.rounds
    code = failure.exit_code
    lines.emit("failed", reason=failure.reason, message=str(failure), exit_code=code, rounds=rounds)


def _say_failure(agent: "Agent | AgentGroup", failure: CospanError, lines: JsonLines | None) -> None:
    """Reports a failure if the process ends before `main` does."""
    if lines is not None:
        _emit_failure(agent, failure, lines)
    say(f"cospan: {failure}")


def _say_end(agent: "Agent | AgentGroup", end: AgentEnd, lines: JsonLines | None) -> None:
    progress = None if agent.learner is None else AgentProgress.of_learner(agent.learner)
    if lines is not None:
        values = {"agent": agent.name, "rounds": 0} if progress is None else progress.as_document()
        lines.emit("finished", message=end.message, left=end.left, **values)
        return
    learnt = f"; {words(progress)}" if progress is not None and progress.rounds else ""
    kept = f"; saved in {agent.state_path}" if agent.state_path is not None and end.rounds else ""
    say(f"{agent.name}: {end.message}; {end.rounds} rounds learnt{learnt}{kept}", error=False)
