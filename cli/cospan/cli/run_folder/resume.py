"""`cospan run --resume`: how the run was started, how much of it is stored, and whether it can be resumed."""

import contextlib
import itertools
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cospan.cli.engines.choice import ENGINES, HERE, LOCAL, Engine
from cospan.cli.run_folder.layout import RunFolder, claim_folder, user_of, write_text
from cospan.cli.run_folder.progress_log import RoundRow, RunMonitor, row_of
from cospan.cli.run_folder.stored_run import StoredRun
from cospan.cli.settings.layers import Settings, load_settings
from cospan.cli.settings.run_specification import RunPlan, plan_again
from cospan.core.specification import RunSpecification
from cospan.server.storage.reader import read_basis, read_reports, read_state
from cospan.server.storage.run_folder import differences
from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.files.safe_files import read_text
from cospan.wire.files.spec_file import load_spec
from cospan.wire.messages import FinishCause

_FORMAT = "cospan-launch-2"
_MAX_LAUNCH_BYTES = 1 << 16
_CLAIM_SECONDS = 30.0
"""Longest wait for running processes of the run, which may write their files."""
_TIMES_AS_LONG = 2.0
_KEPT_SETTINGS = (
    *("processes", "baseline", "checkpoint_interval", "checkpoint_seconds"),
    *("min_steps_per_round", "memory_gib"),
)


@dataclass(frozen=True, slots=True)
class Launch:
    """How `cospan run` was started, beside the specification; it also determines the bits.

    Attributes:
        in_process: whether everything ran in one process.
        settings: those of `_KEPT_SETTINGS`.
        engine: of its agent processes; it determines no bits.
    """

    in_process: bool
    settings: Mapping[str, Any]
    engine: Engine = HERE

    @classmethod
    def of(cls, settings: Settings, *, in_process: bool, engine: Engine = HERE) -> "Launch":
        """Of a new run."""
        return cls(in_process, {name: getattr(settings, name) for name in _KEPT_SETTINGS}, engine)

    def write(self, folder: RunFolder) -> None:
        """Writes `launch.json`."""
        document = {"format": _FORMAT, "in_process": self.in_process, **self.settings}
        if not self.engine.is_local:
            document |= {"engine": self.engine.name, "address": self.engine.address}
        write_text(folder.launch, json.dumps(document, indent=2) + "\n")


@dataclass(frozen=True, eq=False, slots=True)
class Resumption:
    """A run that can be resumed.

    Attributes:
        plan: of the run, as it was started.
        stored: its stored run; None if it ended before anything was stored.
        engine: that it was started on.
    """

    plan: RunPlan
    stored: StoredRun | None
    engine: Engine = HERE


def claimed(path: Path) -> RunFolder:
    """The folder of a run to resume, locked by this process.

    Raises:
        RunFileError: it is not a run of `cospan run`, or its processes still run.
    """
    found = path.resolve()
    if not found.is_dir():
        raise RunFileError(f"there is no run folder {path}; `cospan runs` lists the runs of a folder")
    if not RunFolder(found).launch.exists():
        if not RunFolder(found).store.exists():
            raise RunFileError(f"{path} holds no stored rounds, so there is no run to resume; see `cospan runs`")
        raise RunFileError(
            f"{path} was not made by `cospan run`, or by an older version; a coordinator's run is resumed with: "
            f"cospan coordinator --run-folder {shlex.quote(str(path))}"
        )
    process = user_of(found)
    if process is not None:
        print(
            f"waiting up to {_CLAIM_SECONDS:g} s for the processes of the run in {path} to end (process {process})",
            file=sys.stderr,
            flush=True,
        )
    shown = found if path.is_symlink() else path
    with contextlib.suppress(ValueError):
        shown = shown.relative_to(Path.cwd())
    return RunFolder(shown, claim=claim_folder(found, _CLAIM_SECONDS))


def prepared(folder: RunFolder, flags: Mapping[str, Any], config: Path | None, reference: str | None) -> Resumption:
    """The run to resume in a folder.

    Args:
        folder: of the run.
        flags: of the command line; they must not contradict the run.
        config: the file of settings, or None.
        reference: the workload's name, if given.

    Raises:
        InvalidValueError: a flag contradicts the run, or it was made in one process.
        RunFileError: what is stored cannot be read.
    """
    launch = _read_launch(folder)
    if launch.in_process:
        raise InvalidValueError(
            f"the run in {folder.path} was made in one process (--in-process), which stores no rounds, so it "
            f"cannot be resumed; run it again with: cospan run --spec {shlex.quote(str(folder.spec))} --in-process"
        )
    stored = StoredRun(folder, read_state(folder.store)) if folder.store.exists() else None
    spec = load_spec(folder.spec) if stored is None else stored.state.specification
    _check_flags(folder, spec, launch, flags, reference)
    kept = {name: value for name, value in launch.settings.items() if name not in flags and value is not None}
    plan = plan_again(spec, {**flags, **kept}, config)
    if differing := differences(spec, plan.specification):
        plan.close()
        raise InvalidValueError(f"the run in {folder.path} has {differing}; leave out what differs to resume it")
    return Resumption(plan, stored, launch.engine)


def is_complete(folder: RunFolder) -> str:
    """Why there is nothing to resume in a folder, in words; empty if there is.

    A run with all its rounds is complete when its results are written, including the agents'.
    """
    if not folder.store.exists():
        return ""
    state = read_state(folder.store)
    if state.finish_cause is None:
        return ""
    if state.finish_cause == FinishCause.ROUNDS_REACHED.value and not _has_results(folder):
        return ""
    return f"the run in {folder.path} is over after {state.rounds} rounds: {state.finish_message}"


def command_to_resume(path: Path) -> str:
    """The command that resumes a run."""
    return f"cospan run --resume {shlex.quote(str(path))}"


def is_resumable(folder: RunFolder) -> bool:
    """Whether `cospan run --resume` can resume the run of a folder."""
    with contextlib.suppress(RunFileError):
        return folder.launch.exists() and folder.store.exists() and not is_complete(folder)
    return False


def rounds_stored(folder: RunFolder) -> int:
    """Number of rounds stored in a folder; 0 if it cannot be read."""
    with contextlib.suppress(RunFileError):
        return read_state(folder.store).rounds if folder.store.exists() else 0
    return 0


def seconds_to_come_back(folder: RunFolder) -> float:
    """Seconds in which agents can learn again what they lost: the whole run if they save no environment."""
    with contextlib.suppress(RunFileError):
        return _TIMES_AS_LONG * sum(report.seconds for report in read_reports(folder.store))
    return 0.0


def _has_results(folder: RunFolder) -> bool:
    """Whether `result.json` is the parent's, which names every agent, and not the coordinator's alone."""
    try:
        document = folder.read_result()
        return bool(document["per_agent"]) and document["finish_cause"] == FinishCause.ROUNDS_REACHED.value
    except (RunFileError, KeyError):
        return False


def _read_launch(folder: RunFolder) -> Launch:
    try:
        document = json.loads(read_text(folder.launch, _MAX_LAUNCH_BYTES))
        if document["format"] != _FORMAT:
            raise ValueError(f"its format is {document['format']!r}, and this version knows {_FORMAT!r}")
        engine = Engine(document.get("engine", LOCAL), document.get("address"))
        if engine.name not in ENGINES:
            raise ValueError(f"its engine is {engine.name!r}, and this version knows {' and '.join(ENGINES)}")
        return Launch(bool(document["in_process"]), {name: document[name] for name in _KEPT_SETTINGS}, engine)
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise RunFileError(
            f"{folder.launch} cannot be read: {failure}; restore a copy, or start a new run"
        ) from failure


def _check_flags(
    folder: RunFolder, spec: RunSpecification, launch: Launch, flags: Mapping[str, Any], reference: str | None
) -> None:
    if reference not in (None, spec.workload):
        raise InvalidValueError(
            f"the run in {folder.path} has workload = {spec.workload!r}, and {reference!r} is asked for; "
            "leave it out to resume the run"
        )
    asked = load_settings({name: flags[name] for name in _KEPT_SETTINGS if name in flags}, None)
    for name in ("processes", "baseline"):
        if name in flags and getattr(asked, name) != launch.settings[name]:
            raise InvalidValueError(
                f"the run in {folder.path} has {name} = {_plain(launch.settings[name])}, and "
                f"{_plain(getattr(asked, name))} is asked for; leave it out to resume the run"
            )


def _plain(value: object) -> str:
    return "nothing" if value is None else str(value).lower()


# Subspace errors of the rounds --------------------------------------------------------------------------------


class ErrorsFile:
    """The subspace errors of rounds, which only `cospan run` knows, until the run is over."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.subspace_errors
        self._written = 0

    def add(self, rows: Sequence[RoundRow]) -> None:
        """Appends the errors of new rows; failures to write are ignored."""
        text = _lines(rows[self._written :])
        self._written = len(rows)
        if text:
            with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
                file.write(text)

    def begin_with(self, rows: Sequence[RoundRow]) -> None:
        """Writes the errors of a resumed run."""
        self._written = len(rows)
        with contextlib.suppress(RunFileError):
            write_text(self._path, _lines(rows))

    def found(self) -> dict[int, float]:
        """The errors of complete lines, by round."""
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return {}
        found: dict[int, float] = {}
        for line in text.split("\n")[:-1]:
            number, _, error = line.partition(",")
            with contextlib.suppress(ValueError):
                found[int(number)] = float(error)
        return found


def _lines(rows: Sequence[RoundRow]) -> str:
    known = (row for row in rows if row.subspace_error is not None)
    return "".join(f"{row.round},{row.subspace_error!r}\n" for row in known)


def recollect(monitor: RunMonitor, folder: RunFolder, errors: ErrorsFile) -> None:
    """Adds the stored rounds to the monitor, as if it had watched them.

    Raises:
        RunFileError: the store cannot be read.
    """
    known, state = errors.found(), read_state(folder.store)
    kept = frozenset(state.kept)
    # The last round of a run that is over is repeated.
    rounds = state.rounds if state.finish_cause is None else state.rounds - 1
    rows = []
    for report in itertools.islice(read_reports(folder.store), rounds):
        after = report.closed_round + 1
        error = known.get(report.closed_round)
        if error is None and after in kept and monitor.true_basis is not None:
            error = monitor.subspace_error(read_basis(folder.store, after).basis)
        rows.append(row_of(report, error))
    monitor.rows.extend(rows)
    errors.begin_with(monitor.rows)


def mend_last_line(path: Path) -> None:
    """Removes an incomplete last line, which a killed process may leave."""
    with contextlib.suppress(OSError), path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        place = size
        while place:
            begin = max(0, place - 65536)
            file.seek(begin)
            cut = file.read(place - begin).rfind(b"\n")
            if cut >= 0:
                place = begin + cut + 1
                break
            place = begin
        if place < size:
            file.truncate(place)
