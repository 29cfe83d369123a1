"""`cospan runs`: the runs of a folder, their states, and their stored bases."""

import json as json_text
import shlex
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cospan.cli.output.table import table
from cospan.cli.run_folder.layout import COMPARISON, RUNS, RunFolder, user_of
from cospan.cli.run_folder.resume import command_to_resume, is_resumable
from cospan.server.storage.lock import holder_of
from cospan.server.storage.reader import read_state, spans
from cospan.wire.errors import RunFileError
from cospan.wire.files.spec_file import load_spec
from cospan.wire.messages import FinishCause
from cospan.wire.text import MAX_RECORD, printable

STATES = {
    FinishCause.ROUNDS_REACHED.value: "finished",
    FinishCause.STOPPED.value: "stopped",
    FinishCause.FAILED.value: "failed",
}
"""A run in a word, by why it is over; others have `ended`."""
_COLUMNS = ("run", "id", "workload", "state", "rounds", "agents", "started", "last change")
_NUMBERS = (4, 5)


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run of a folder; None if unknown.

    Attributes:
        path: its folder.
        state: running, resumable, finished, stopped, failed; ended without a resumable store;
            unfinished without a result; unreadable.
        run_id: run id.
        workload: its name.
        rounds: number of rounds done.
        of: number of rounds of the specification; 0 for no end.
        agents: number of agents in the last round.
        started: seconds since 1970.
        changed: time of the last stored round, or of the result.
        kept: t of every basis B_t that can be exported.
        process: id of its coordinator.
        note: why it is over, or cannot be read.
        resume: the command that resumes it, or None.
    """

    path: Path
    state: str
    run_id: str | None = None
    workload: str | None = None
    rounds: int | None = None
    of: int | None = None
    agents: int | None = None
    started: float | None = None
    changed: float | None = None
    kept: tuple[int, ...] = ()
    process: str | None = None
    note: str | None = None
    resume: str | None = None


def list_runs(folder: Path | None, *, json: bool) -> int:
    """Prints the runs of a folder, oldest first, or the one that the folder is of; the exit code.

    Raises:
        RunFileError: it is no folder that can be read.
    """
    parent = RUNS if folder is None else folder
    alone = is_run(parent)
    lines = [describe(parent)] if alone else [describe(path) for path in run_folders(parent)]
    lines.sort(key=lambda line: (line.started or 0.0, line.path.name))
    if json:
        print(json_text.dumps([_document(line) for line in lines], indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    if not lines:
        print(f"no runs in {parent}")
        return 0
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print("\n".join(table(_COLUMNS, [_row(line) for line in lines], numbers=_NUMBERS, width=width)))
    notes = [printable(f"{line.path.name}: {line.note}", MAX_RECORD) for line in lines if line.note is not None]
    notes += [
        printable(f"{line.path.name}: resume with: {line.resume}", MAX_RECORD)
        for line in lines
        if line.resume is not None
    ]
    if alone:
        notes.append(f"bases kept, after rounds: {spans(lines[0].kept) or 'none'}")
    if notes:
        print("", *notes, sep="\n")
    return 0


def is_run(path: Path) -> bool:
    """Whether a folder is a run folder."""
    folder = RunFolder(path)
    return any(_is_there(name) for name in (folder.store, folder.result, folder.spec))


def run_folders(parent: Path) -> list[Path]:
    """The folders of runs in a folder.

    Raises:
        RunFileError: it is no folder that can be read.
    """
    try:
        if not parent.exists():
            raise RunFileError(f"there is no folder {parent}; name a folder of runs, or that of one run")
        if not parent.is_dir():
            raise RunFileError(f"{parent} is a file; name a folder of runs, or that of one run")
        return [path for path in sorted(parent.iterdir()) if not path.is_symlink() and is_run(path)]
    except OSError as failure:
        raise RunFileError(f"cannot read the folder {parent}: {failure.strerror}; name another") from failure


def describe(path: Path) -> RunLine:
    """The state of the run in a folder, or that it is unreadable."""
    folder = RunFolder(path)
    try:
        return _of_store(folder) if _is_there(folder.store) else _of_files(folder)
    except (RunFileError, OSError, ValueError, KeyError, TypeError, RecursionError) as failure:
        return RunLine(
            path, "unreadable", changed=_time_of(path), process=holder_of(folder.store), note=str(failure)
        )


def _of_store(folder: RunFolder) -> RunLine:
    process = holder_of(folder.store) or _user(folder)
    stored = read_state(folder.store)
    by_run = folder.launch.exists()
    can_resume = is_resumable(folder) if by_run else stored.finish_cause is None
    state = "resumable" if process is None else "running"
    if stored.finish_cause is not None and not (by_run and can_resume and process is None):
        state = STATES.get(stored.finish_cause, "ended")
    return RunLine(
        path=folder.path,
        state=state,
        run_id=stored.run_id,
        workload=stored.specification.workload,
        rounds=stored.rounds,
        of=stored.specification.rounds,
        agents=stored.agents,
        started=stored.created,
        changed=stored.created if stored.stored is None else stored.stored,
        kept=stored.kept,
        process=process,
        note=None if state in ("finished", "resumable") else stored.finish_message,
        resume=_command(folder, by_run=by_run) if state == "resumable" else None,
    )


def _user(folder: RunFolder) -> str | None:
    """The process id of the `cospan run` that has the folder; its coordinator may have ended."""
    process = user_of(folder.path)
    return None if process is None else process.partition(",")[0]


def _command(folder: RunFolder, *, by_run: bool) -> str:
    """The command that resumes a run."""
    if by_run:
        return command_to_resume(folder.path)
    return f"cospan coordinator --run-folder {shlex.quote(str(folder.path))}"


def _of_files(folder: RunFolder) -> RunLine:
    """A run without a store: one of `--in-process`, or a comparison."""
    spec = load_spec(folder.spec)
    values: dict[str, Any] = {"workload": spec.workload, "of": spec.rounds, "started": _time_of(folder.spec)}
    if not folder.result.exists():
        state = "finished" if (folder.path / COMPARISON).exists() else "unfinished"
        return RunLine(folder.path, state, changed=_time_of(folder.path), **values)
    found = folder.read_result()
    state = STATES.get(found["finish_cause"], "ended")
    return RunLine(
        path=folder.path,
        state=state,
        run_id=found["run_id"] or None,
        rounds=int(found["rounds"]),
        agents=int(found["agents"]),
        changed=_time_of(folder.result),
        kept=(0, int(found["rounds"])) if folder.basis.exists() else (0,),
        note=None if state == "finished" else found["message"],
        **values,
    )


def _is_there(path: Path) -> bool:
    """Whether a file exists; True if its folder may not be searched."""
    try:
        return path.exists()
    except PermissionError:
        return True
    except OSError:
        return False


def _time_of(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _row(line: RunLine) -> tuple[str, ...]:
    rounds = "-" if line.rounds is None else f"{line.rounds}/{line.of}" if line.of else str(line.rounds)
    agents = "-" if line.agents is None else str(line.agents)
    names = (line.path.resolve().name, line.run_id or "-", line.workload or "-", line.state)
    return (*names, rounds, agents, _clock(line.started), _clock(line.changed))


def _clock(seconds: float | None) -> str:
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%SZ}"


def _document(line: RunLine) -> dict[str, Any]:
    def moment(seconds: float | None) -> str | None:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()

    return {
        "path": str(line.path),
        "run_id": line.run_id,
        "workload": line.workload,
        "state": line.state,
        "rounds": line.rounds,
        "of_rounds": line.of,
        "agents": line.agents,
        "started": moment(line.started),
        "last_change": moment(line.changed),
        "kept_rounds": list(line.kept),
        "process": line.process,
        "message": line.note,
        "resume": line.resume,
    }
