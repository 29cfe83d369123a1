"""The stored run of a folder: whether it can be resumed, and whether it is the one that is asked for."""

from dataclasses import dataclass
from pathlib import Path

from cospan.cli.run_folder.layout import NEWEST, RunFolder
from cospan.core.specification import RunSpecification
from cospan.server.storage.lock import STORE
from cospan.server.storage.reader import StoredState, read_state
from cospan.server.storage.run_folder import differences
from cospan.wire.errors import InvalidValueError
from cospan.wire.messages import FinishCause

_DONE = (FinishCause.ROUNDS_REACHED.value, FinishCause.STOPPED.value)


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A stored run.

    Attributes:
        folder: of the run.
        state: its stored state.
    """

    folder: RunFolder
    state: StoredState


def run_to_resume(
    run_folder: Path | None, runs_folder: Path | None, *, new_run: bool, reopen: bool = False
) -> StoredRun | None:
    """The run that a coordinator resumes in these folders; None for a new one.

    Raises:
        RunFileError: a stored run cannot be read; it stays unchanged.
        InvalidValueError: the folder holds a run that is over, or any run although a new one is asked for.
    """
    if run_folder is not None:
        found = _stored(run_folder)
        if found is not None and (new_run or (found.state.finish_cause is not None and not reopen)):
            over = f", which is over ({found.state.finish_message})" if found.state.finish_cause else ""
            raise InvalidValueError(
                f"run folder {run_folder} holds run {found.state.run_id}{over}; name another for a new run"
            )
        return found
    if runs_folder is None or new_run:
        return None
    found = _stored((runs_folder / NEWEST).resolve())
    return found if found is not None and found.state.finish_cause is None else None


def run_that_is_over(run_folder: Path | None, runs_folder: Path | None) -> StoredRun | None:
    """The run of these folders if it is done or was stopped, or None.

    Args:
        run_folder: of one run, or None.
        runs_folder: of runs; the newest is checked.

    Raises:
        RunFileError: a stored run cannot be read.
    """
    folder = run_folder if run_folder is not None else None if runs_folder is None else runs_folder / NEWEST
    found = None if folder is None else _stored(folder.resolve())
    return found if found is not None and found.state.finish_cause in _DONE else None


def _stored(folder: Path) -> StoredRun | None:
    store = folder / STORE
    return StoredRun(RunFolder(folder), read_state(store)) if store.exists() else None


def check_same_run(stored: StoredRun, asked: RunSpecification) -> None:
    """Raises InvalidValueError if the stored run is not the one that is asked for."""
    differing = differences(stored.state.specification, asked)
    if differing:
        raise InvalidValueError(
            f"the run in {stored.folder.path}, of which {stored.state.rounds} rounds are done, has "
            f"{differing}: ask for the same to resume it, or give --new-run to start another"
        )
