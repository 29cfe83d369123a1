"""The run folder: where it is, what its files are called, and that each appears whole or not at all."""

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
from cospan.server.storage.lock import FileLock, holder_of_lock
from cospan.wire.errors import RunFileError
from cospan.wire.files.npz import load_npz, save_npz
from cospan.wire.files.safe_files import writing_whole
from cospan.wire.files.spec_file import to_toml

RUNS = Path("runs")
STORE = "coordinator.sqlite"
"""The stored run, in its folder."""
NEWEST = "latest"
"""The link to the newest run, in a folder of runs."""
BASIS_FORMAT = "cospan-basis-1"
_MOST_RUNS_IN_A_SECOND = 1000
_CLAIM = ".run.lock"
_CLAIM_SECONDS = 1.0
_OWN_FILES = (
    *("spec.toml", "result.json", "rounds.csv", "basis.npz", "log.jsonl", "convergence.png", "launch.json"),
    ".subspace_errors.csv",
    *(f".{name}.*.tmp" for name in ("spec.toml", "result.json", "rounds.csv", "basis.npz", "launch.json")),
    *(STORE, f"{STORE}-wal", f"{STORE}-shm", f"{STORE}-journal"),
    *(f".{STORE}.lock", f".{STORE}.new", f".{STORE}.new-journal"),
    *("agents/site-*.npz", "agents/group-*.npz", "agents/.site-*.npz.*.tmp", "agents/.group-*.npz.*.tmp"),
)
"""What a run writes; of another name nothing is removed."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder.

    Attributes:
        path: of the folder.
        made: the folders that were made for it, outermost first.
        claim: the lock on it, of the process that makes the run and of its children; None where it is only read,
            or another process has it.
    """

    path: Path
    made: tuple[Path, ...] = ()
    claim: FileLock | None = field(default=None, compare=False)

    @property
    def spec(self) -> Path:
        """Everything needed to run it again."""
        return self.path / "spec.toml"

    @property
    def result(self) -> Path:
        """What came out."""
        return self.path / "result.json"

    @property
    def rounds(self) -> Path:
        """One line a round."""
        return self.path / "rounds.csv"

    @property
    def basis(self) -> Path:
        """The newest basis."""
        return self.path / "basis.npz"

    @property
    def store(self) -> Path:
        """The run as the coordinator stores it, to go on with."""
        return self.path / STORE

    @property
    def log(self) -> Path:
        """JSON lines."""
        return self.path / "log.jsonl"

    @property
    def picture(self) -> Path:
        """How it converged."""
        return self.path / "convergence.png"

    @property
    def agents(self) -> Path:
        """The folder of what the agents have learnt."""
        return self.path / "agents"

    def agent(self, agent_id: str) -> Path:
        """What one agent has learnt."""
        return self.agents / f"{agent_id}.npz"

    def write_spec(self, specification: RunSpecification) -> None:
        """Writes `spec.toml`."""
        write_text(self.spec, to_toml(specification))

    def write_result(self, document: Mapping[str, Any]) -> None:
        """Writes `result.json`."""
        write_text(self.result, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_basis(self, basis: Float[np.ndarray, "d r"], *, run_id: str, rounds: int) -> None:
        """Writes `basis.npz`: the basis after `rounds` rounds, and of which run it is."""
        save_npz(self.basis, format=BASIS_FORMAT, run_id=run_id, round=rounds, basis=basis)

    def read_basis(self) -> Float[np.ndarray, "d r"]:
        """The basis of `basis.npz`.

        Raises:
            RunFileError: it is missing, damaged, or no basis.
        """
        values = load_npz(self.basis, "the basis of a run")
        if str(values.get("format")) != BASIS_FORMAT:
            raise RunFileError(f"{self.basis} is not the basis of a run (format {BASIS_FORMAT})")
        return values["basis"]

    @property
    def launch(self) -> Path:
        """How the run was started, to be resumed alike."""
        return self.path / "launch.json"

    @property
    def subspace_errors(self) -> Path:
        """What only `cospan run` knows of the rounds, until it is over."""
        return self.path / ".subspace_errors.csv"

    def discard_empty(self) -> None:
        """Lets go of the folder, and removes those that were made for this run where nothing is in them."""
        self.release()
        for folder in reversed(self.made):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def discard(self) -> None:
        """Removes what this run has written, by name, and the folders made for it where they are empty."""
        for pattern in _OWN_FILES:
            for entry in self.path.glob(pattern):
                with contextlib.suppress(OSError):
                    entry.unlink()
        with contextlib.suppress(OSError):
            self.agents.rmdir()
        _point_elsewhere(self)
        self.discard_empty()

    def release(self) -> None:
        """Lets another process have the folder."""
        if self.claim is not None:
            self.claim.remove()


def claim_folder(path: Path, seconds: float = _CLAIM_SECONDS) -> FileLock:
    """Takes a run folder for this process and the children that inherit the lock's descriptor.

    Args:
        path: of the folder, which is there.
        seconds: so long processes that have it are waited for.

    Raises:
        RunFileError: another run has it, or the folder cannot be written to.
    """
    try:
        lock = FileLock(path / _CLAIM, lambda holder: _in_use(path, holder), seconds)
    except OSError as failure:
        raise RunFileError(
            f"the run folder {path} cannot be written to: {failure.strerror}; name another, or change its "
            "permissions"
        ) from failure
    lock.say(f"{os.getpid()}, started at {datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}")
    return lock


def user_of(path: Path) -> str | None:
    """The process that has a run folder, and when it was started; None where none has it."""
    return holder_of_lock(path / _CLAIM)


def _in_use(path: Path, holder: str) -> str:
    return f"the run folder {path} is in use by another run (process {holder}); name another, or end that run first"


def check_free(path: Path) -> None:
    """Raises RunFileError where `path` is anything but an empty folder or nothing.

    A coordinator that was killed before its run began leaves a lock, and perhaps half a file; that is nothing.
    """
    try:
        holder = user_of(path)
        taken = path.exists() and (not path.is_dir() or any(map(_counts, path.iterdir())))
    except OSError as failure:
        raise RunFileError(f"cannot read the run folder {path}: {failure.strerror}") from failure
    if holder is not None:
        raise RunFileError(_in_use(path, holder))
    if taken:
        what = "is not empty" if path.is_dir() else "is a file"
        raise RunFileError(f"the run folder {path} {what}; name another, or remove it first")


def _counts(entry: Path) -> bool:
    return entry.name != _CLAIM and not entry.name.startswith(f".{STORE}.")


def make_run_folder(path: Path | None, *, workload: str) -> RunFolder:
    """Makes the folder of a run, empty.

    Args:
        path: which; `runs/<UTC time>-<workload>` where left out.
        workload: the name that appears in it.

    Raises:
        RunFileError: it cannot be made, or is not empty.
    """
    if path is None:
        return _make_unique(RUNS, workload)
    check_free(path)
    return _make(path, exist_ok=True)


def folder_of_parent(path: Path) -> RunFolder:
    """The folder that the parent of this process has made and claimed."""
    return RunFolder(path)


def make_run_folder_in(parent: Path, *, workload: str) -> RunFolder:
    """Makes a new folder in `parent`.

    Raises:
        RunFileError: it cannot be made.
    """
    return _make_unique(parent, workload)


def point_to_newest(folder: RunFolder) -> None:
    """Lets the link `latest` beside a folder point to it, and makes a folder in it for the agents' files.

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
    """Lets `runs/latest` point to a folder that a command has made, so that it is found again.

    For a folder with a name of the user's own that is so where it lies below the current folder, or there are runs
    already. A link that cannot be made is done without, and none points into the folder for temporary files.
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
    """Lets `runs/latest`, where it points to a folder that is given up, point to the newest other run."""
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


def _make_unique(parent: Path, workload: str) -> RunFolder:
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{_file_name(workload)}"
    for number in range(1, _MOST_RUNS_IN_A_SECOND):
        path = parent / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            return _make(path, exist_ok=False)
    raise RunFileError(f"{parent / name} and all names like it exist; name a folder with --output")


def _make(path: Path, *, exist_ok: bool) -> RunFolder:
    """Makes a folder and those above it; raises FileExistsError where it may not exist and does."""
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
    if exist_ok and any(map(_counts, path.iterdir())):  # another run was quicker, and is over
        claim.remove()
        check_free(path)
    return folder


def _cannot_make(path: Path, failure: OSError) -> RunFileError:
    return RunFileError(f"cannot make the run folder {path}: {failure.strerror}; name another")


def _file_name(workload: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", workload).strip("-.")[:80] or "run"


def write_text(path: Path, text: str) -> None:
    """Writes a text by way of a temporary file beside it, with the permissions that the umask leaves.

    Raises:
        RunFileError: it cannot be written.
    """
    try:
        with writing_whole(path) as file:
            file.write(text.encode())
    except OSError as failure:
        raise RunFileError(f"cannot write {path}: {failure.strerror}") from failure
