"""Where modules are imported from: the working folder last, and only for workloads of the user's own.

A file `matplotlib.py` or `queue.py` that lies in the working folder must not be executed in place of the library of
that name. `python -m` puts the working folder first on the path; `python -P -m` leaves it out.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from cospan.wire.errors import WorkloadError

_SAFE_PATH = "PYTHONSAFEPATH"


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of Cospan in a process with the import path of this one.

    The child is given this interpreter's options that decide what is on the path (`-I`, `-E`, `-s`).
    """
    flags = sys.flags
    inherited = (("-I", flags.isolated), ("-E", flags.ignore_environment), ("-s", flags.no_user_site))
    return [sys.executable, *(option for option, chosen in inherited if chosen), "-P", "-m", module, *arguments]


@contextlib.contextmanager
def spawning_safely() -> Iterator[None]:
    """Processes that `multiprocessing` spawns in this block begin as with `-P`, an option that it does not give.

    They are told so by the environment, and call `spawned` so that what they start in turn is not.
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


def spawned() -> None:
    """In a process that was spawned: scripts that a workload starts have their own folder on their path again."""
    os.environ.pop(_SAFE_PATH, None)


def add_working_folder() -> Path:
    """Lets modules of the working folder be imported, after all others; the folder.

    Raises:
        WorkloadError: the working folder was deleted.
    """
    try:
        here = Path.cwd()
    except OSError as failure:
        raise WorkloadError(
            f"the working folder cannot be read ({failure.strerror}), so no workload can be imported from it; "
            "change to a folder that exists"
        ) from failure
    if str(here) not in sys.path:
        sys.path.append(str(here))
    return here


def hidden_by(module: str, folder: Path) -> Path | None:
    """The module of this name in a folder that is not the one which was imported; None where there is none."""
    top = module.partition(".")[0]
    imported = getattr(sys.modules.get(top), "__file__", None)
    for path in (folder / f"{top}.py", folder / top / "__init__.py"):
        if path.is_file() and (imported is None or path.resolve() != Path(imported).resolve()):
            return path
    return None
