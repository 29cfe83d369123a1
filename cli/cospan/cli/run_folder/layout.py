"""The run folder: its place, its files, and their atomic writing."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.core.specification import RunSpecification
from cospan.server.storage.lock import STORE, FileLock, holder_of_lock
from cospan.wire.errors import RunFileError
from cospan.wire.files.npz import load_npz, save_npz
from cospan.wire.files.safe_files import MAX_RESULT_BYTES, read_text, writing_whole
from cospan.wire.files.spec_file import to_toml

RUNS = Path("runs")
NEWEST = "latest"
"""The link to the newest run, in a folder of runs."""
COMPARISON = "comparison.json"
"""What `cospan compare` has found, in its folder; it stores no rounds."""
TENSORBOARD, EVENTS = "tensorboard", "events.out.tfevents.*"
"""The folder of event files in a run folder, and their names."""
MLFLOW_RUN = ".mlflow.json"
"""Which MLflow run a run folder is tracked by."""
BASIS_FORMAT = "cospan-basis-1"
_MOST_RUNS_IN_A_SECOND = 1000
_CLAIM = ".run.lock"
_CLAIM_SECONDS = 1.0
_OWN_FILES = (
    *("spec.toml", "result.json", "rounds.csv", "basis.npz", "log.jsonl", "convergence.png", "launch.json"),
    "sites.png",
    *(".subspace_errors.csv", MLFLOW_RUN, f".{MLFLOW_RUN}.*.tmp", f"{TENSORBOARD}/{EVENTS}"),
    *(f".{name}.*.tmp" for name in ("spec.toml", "result.json", "rounds.csv", "basis.npz", "launch.json")),
    *(STORE, f"{STORE}-wal", f"{STORE}-shm", f"{STORE}-journal"),
    *(f".{STORE}.lock", f".{STORE}.new", f".{STORE}.new-journal"),
    *("agents/site-*.npz", "agents/group-*.npz", "agents/.site-*.npz.*.tmp", "agents/.group-*.npz.*.tmp"),
)
"""Names of all files of a run; `discard` removes no others."""


class _Entry:
    """The path of a file in a run folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: "RunFolder", _owner: type["RunFolder"]) -> Path:
        return folder.path / self._name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder.

    Attributes:
        path: of the folder.
        made: folders that were made for it, outermost first.
        claim: the lock of the process that makes the run and of its children; None in other processes.
    """

    path: Path
    made: tuple[Path, ...] = ()
    claim: FileLock | None = field(default=None, compare=False)

    spec = _Entry("spec.toml")
    """The specification."""
    result = _Entry("result.json")
    """The run result."""
    rounds = _Entry("rounds.csv")
    """One line per round."""
    basis = _Entry("basis.npz")
    """The newest basis."""
    store = _Entry(STORE)
    """The coordinator's store."""
    log = _Entry("log.jsonl")
    """The log, JSON lines."""
    picture = _Entry("convergence.png")
    """Plot of the learning curves."""
    sites = _Entry("sites.png")
    """Plot of what sharing changes at each site."""
    agents = _Entry("agents")
    """The folder of the agents' files."""
    launch = _Entry("launch.json")
    """How the run was started; see `cospan.cli.run_folder.resume.Launch`."""
    subspace_errors = _Entry(".subspace_errors.csv")
    """Subspace errors of the rounds, which only `cospan run` knows, until the run is over."""

    def agent(self, agent_id: str) -> Path:
        """The file of an agent or a group."""
        return self.agents / f"{agent_id}.npz"

    def write_spec(self, specification: RunSpecification) -> None:
        """Writes `spec.toml`."""
        write_text(self.spec, to_toml(specification))

    def write_result(self, document: Mapping[str, Any]) -> None:
        """Writes `result.json`."""
        write_text(self.result, result_text(document) + "\n")

    def read_result(self) -> dict[str, Any]:
        """The document of `result.json`.

        Raises:
            RunFileError: it is missing or damaged.
        """
        try:
            document = json.loads(read_text(self.result, MAX_RESULT_BYTES))
        except (OSError, ValueError, RecursionError) as failure:
            raise RunFileError(f"cannot read {self.result}: {failure}") from failure
        if not isinstance(document, dict):
            raise RunFileError(f"{self.result} is no result of a run; it must be a JSON object")
        return document

    def write_basis(
        self,
        basis: Float[np.ndarray, "d r"],
        head_covariance: Float[np.ndarray, "r r"] | None = None,
        *,
        run_id: str,
        rounds: int,
    ) -> None:
        """Writes `basis.npz`: the basis after `rounds` rounds, W where the method has one, and the run id."""
        more: dict[str, Any] = {} if head_covariance is None else {"head_covariance": head_covariance}
        save_npz(self.basis, format=BASIS_FORMAT, run_id=run_id, round=rounds, basis=basis, **more)

    def read_basis(self) -> Float[np.ndarray, "d r"]:
        """The basis of `basis.npz`.

        Raises:
            RunFileError: it is missing, damaged, or no basis.
        """
        values = load_npz(self.basis, "the basis of a run")
        if str(values.get("format")) != BASIS_FORMAT:
            raise RunFileError(f"{self.basis} is not the basis of a run (format {BASIS_FORMAT})")
        return values["basis"]

    def discard_empty(self) -> None:
        """Releases the folder, and removes the empty ones of those made for this run."""
        self.release()
        for folder in reversed(self.made):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def discard(self) -> None:
        """Removes the files of this run, by name, and the folders made for it if they are empty."""
        for pattern in _OWN_FILES:
            for entry in self.path.glob(pattern):
                with contextlib.suppress(OSError):
                    entry.unlink()
        for made in (self.agents, self.path / TENSORBOARD):
            with contextlib.suppress(OSError):
                made.rmdir()
        _point_elsewhere(self)
        self.discard_empty()

    def release(self) -> None:
        """Removes the lock."""
        if self.claim is not None:
            self.claim.remove()


def result_text(document: Mapping[str, Any]) -> str:
    """`result.json`: a line for each agent, which json's encoder in C makes, and all else indented."""
    rows = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in document.get("per_agent", ())]
    text = json.dumps(
        {**document, "per_agent": []} if rows else document, indent=2, ensure_ascii=False, allow_nan=False
    )
    if not rows:
        return text
    before, empty, after = text.rpartition('\n  "per_agent": []')  # a line break: it is in no JSON string
    lines = ",\n    ".join(rows)
    return f"{before}{empty[:-1]}\n    {lines}\n  ]{after}"


def claim_folder(path: Path, seconds: float = _CLAIM_SECONDS) -> FileLock:
    """Takes a run folder for this process and the children that inherit the lock's descriptor.

    Args:
        path: of an existing folder.
        seconds: longest wait for processes that have it.

    Raises:
        RunFileError: another run has it, or the folder cannot be written to.
    """
    try:
        lock = FileLock(path / _CLAIM, lambda lock_holder: _in_use(path, lock_holder), seconds)
    except OSError as failure:
        raise RunFileError(
            f"the run folder {path} cannot be written to: {failure.strerror}; name another, or change its "
            "permissions"
        ) from failure
    lock.say(f"{os.getpid()}, started at {datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}")
    return lock


def user_of(path: Path) -> str | None:
    """The process that has a run folder, and when it was started; None if none has it."""
    return holder_of_lock(path / _CLAIM)


def _in_use(path: Path, process: str) -> str:
    return f"the run folder {path} is in use by another run (process {process}); name another, or end that run"


def check_free(path: Path) -> None:
    """Raises RunFileError unless `path` is an empty folder or does not exist.

    Ignores the lock and the partial store of a coordinator that was killed before its run started.
    """
    try:
        process = user_of(path)
        taken = path.exists() and (not path.is_dir() or any(map(_counts, path.iterdir())))
    except OSError as failure:
        raise RunFileError(f"cannot read the run folder {path}: {failure.strerror}") from failure
    if process is not None:
        raise RunFileError(_in_use(path, process))
    if taken:
        what = "is not empty" if path.is_dir() else "is a file"
        raise RunFileError(f"the run folder {path} {what}; name another, or remove it first")


def _counts(entry: Path) -> bool:
    return entry.name != _CLAIM and not entry.name.startswith(f".{STORE}.")


def make_run_folder(path: Path | None, *, workload: str) -> RunFolder:
    """Makes the folder of a run, empty.

    Args:
        path: of the folder; None for `runs/<UTC time>-<workload>`.
        workload: for that name.

    Raises:
        RunFileError: it cannot be made, or is not empty.
    """
    if path is None:
        return make_run_folder_in(RUNS, workload=workload)
    check_free(path)
    return _make(path, exist_ok=True)


def point_to_newest(folder: RunFolder) -> None:
    """Points the link `latest` beside a folder to it, and makes its folder for the agents' files.

    Agents that share the volume write to `latest/agents` and need not know the folder's name.

    Raises:
        RunFileError: they cannot be made.
    """
    link = folder.path.parent / f".{NEWEST}-{folder.path.name}"
    try:
        folder.agents.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(folder.path.name)
        link.replace(folder.path.parent / NEWEST)
    except OSError as failure:
        raise _cannot_make(folder.path, failure) from failure


def point_to_newest_of(folder: RunFolder) -> None:
    """Points `runs/latest` to a folder that a command has made, if that is possible.

    A folder that the user named must lie below the current folder, unless `runs` exists; none in the folder for
    temporary files is linked.
    """
    here, temporary = Path.cwd(), Path(tempfile.gettempdir()).resolve()
    path = folder.path.resolve()
    if not (RUNS.is_dir() or path.is_relative_to(here)):
        return
    if path.is_relative_to(temporary) and temporary.is_relative_to(here):
        return
    link = RUNS / f".{NEWEST}-{path.name}"
    with contextlib.suppress(OSError):
        RUNS.mkdir(exist_ok=True)
        newest = RUNS / NEWEST
        if newest.exists() and not newest.is_symlink():
            return
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(path, RUNS.resolve()))
        link.replace(newest)


def _point_elsewhere(folder: RunFolder) -> None:
    """Points `runs/latest` from a discarded folder to the newest other run."""
    newest = RUNS / NEWEST
    with contextlib.suppress(OSError):
        if not newest.is_symlink() or newest.resolve() != folder.path.resolve():
            return
        newest.unlink()
        others = [path for path in RUNS.iterdir() if path.is_dir() and path.name != folder.path.name]
        if others:
            newest.symlink_to(max(others).name)
        else:
            RUNS.rmdir()


def make_run_folder_in(parent: Path, *, workload: str) -> RunFolder:
    """Makes `<parent>/<UTC time>-<workload>`.

    Raises:
        RunFileError: it cannot be made.
    """
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{_file_name(workload)}"
    for number in range(1, _MOST_RUNS_IN_A_SECOND):
        path = parent / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            return _make(path, exist_ok=False)
    raise RunFileError(f"{parent / name} and all names like it exist; name a folder with --output")


def _make(path: Path, *, exist_ok: bool) -> RunFolder:
    """Makes a folder and its parents; raises FileExistsError if it exists and must not."""
    above = next((folder for folder in path.parents if folder.exists()), path.parent)
    if above.exists() and not above.is_dir():
        raise RunFileError(f"cannot make the run folder {path}: {above} is a file; name another")
    lacking = tuple(folder for folder in reversed((path, *path.parents)) if not folder.exists())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise _cannot_make(path, failure) from failure
    try:
        path.mkdir(exist_ok=exist_ok)
    except FileExistsError:
        raise
    except OSError as failure:
        raise _cannot_make(path, failure) from failure
    if not os.access(path, os.W_OK | os.X_OK):
        raise RunFileError(f"the run folder {path} cannot be written to; name another, or change its permissions")
    claim = claim_folder(path)
    folder = RunFolder(path, made=lacking, claim=claim)
    if exist_ok and any(map(_counts, path.iterdir())):  # another run was faster, and is over
        claim.remove()
        check_free(path)
    return folder


def _cannot_make(path: Path, failure: OSError) -> RunFileError:
    return RunFileError(f"cannot make the run folder {path}: {failure.strerror}; name another")


def _file_name(workload: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", workload).strip("-.")[:80] or "run"


def write_text(path: Path, text: str) -> None:
    """Writes a text atomically, with the permissions of the umask.

    Raises:
        RunFileError: it cannot be written.
    """
    try:
        with writing_whole(path) as file:
            file.write(text.encode())
    except OSError as failure:
        raise RunFileError(f"cannot write {path}: {failure.strerror}") from failure
