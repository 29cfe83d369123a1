"""`cospan new`: a folder with a fleet that runs at once, to be replaced part by part."""

import importlib.machinery
import keyword
import os
import re
import shutil
import sys
import tomllib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from cospan.wire.console import say
from cospan.wire.errors import InvalidValueError, RunFileError

if TYPE_CHECKING:
    from cospan.client.logs.guess import GivenNames

_MOST_CHARACTERS = 40
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_TEMPLATE = ".tmpl"
_MOST_BYTES = 256 << 20
_FEWEST_TRANSITIONS = 50
_HIDDEN = {"gitignore": ".gitignore"}
"""Files that would be hidden, or obeyed by git, where the templates are."""
SIMULATOR, LOG = "simulator", "csv"


def new_fleet(
    name: str, *, source: str = SIMULATOR, log: Path | None = None, columns: "GivenNames | None" = None
) -> int:
    """Makes the folder `name` in the working folder; the exit code.

    Args:
        name: of the folder; with underscores it is that of its package.
        source: where the steps come from: "simulator" or "csv".
        log: a log, from which a mapping is guessed; with "csv" alone.
        columns: what is said of its columns.

    Raises:
        InvalidValueError: the name cannot be that of a package, there is no such source, or the log cannot be used.
        TableError: the log cannot be read, or cannot be learnt from.
        RunFileError: the folder exists and is not empty, or cannot be written.
    """
    if source not in (SIMULATOR, LOG):
        raise InvalidValueError(f"--from is {source!r}; it can be {SIMULATOR!r} or {LOG!r}")
    if (source == LOG) != (log is not None):
        raise InvalidValueError(
            f"--from {LOG} begins with a log, and none is named; name it, as in `cospan new {name} --from csv FILE`"
            if log is None
            else f"{log} is a log, and --from is {source}; say --from {LOG}"
        )
    package = package_of(name)
    folder = Path(name)
    _check_free(folder)
    contents, copied = rendered(name, package, source), {}
    if log is not None:
        made = mapped_log(log, columns)
        copied = {f"logs/{log.name}": log}
        contents = {path: text.replace("@log@", log.name) for path, text in contents.items()}
        contents["fleet.toml"] = made
    written = _write_whole(folder, contents, copied)
    say(f"{folder}/ has {len(written)} files; next:", error=False)
    commands = ("cospan doctor --mapping fleet.toml", "cospan run --mapping fleet.toml")
    if source == SIMULATOR:
        commands = (f"cospan doctor --workload {package}:workload", f"cospan run {package}:workload")
    for line in (f"cd {name}", *commands):
        say(f"  {line}", error=False)
    say("README.md says which file is which.", error=False)
    return 0


def package_of(name: str) -> str:
    """The package's name of a fleet's.

    Raises:
        InvalidValueError: it is no name, or one that Python or an installed package has.
    """
    if not _NAME.fullmatch(name) or len(name) > _MOST_CHARACTERS:
        raise InvalidValueError(
            f"{name!r} cannot be the name of a fleet; take up to {_MOST_CHARACTERS} lower-case letters, digits and "
            "single hyphens or underscores between them, beginning with a letter, as in cold-stores"
        )
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        raise InvalidValueError(f"{name!r} is a word of Python, so no package can have it; take another name")
    if package in sys.stdlib_module_names or _is_installed(package):
        raise InvalidValueError(
            f"{name!r} is the name of an installed module, which would be imported in its place; take another name"
        )
    return package


def _is_installed(package: str) -> bool:
    """Whether a module of this name is found elsewhere than in the working folder."""
    here = {"", str(Path.cwd())}
    path = [entry for entry in sys.path if entry not in here]
    return importlib.machinery.PathFinder.find_spec(package, path) is not None


def mapped_log(log: Path, columns: "GivenNames | None") -> str:
    """The guessed mapping of a log of which a project is made, as TOML with remarks.

    Raises:
        InvalidValueError: it is no log, or too large to be copied, or its columns do not tell enough.
        TableError: it cannot be read, or cannot be learnt from.
    """
    from cospan.client.logs.check import check_logs, refuse_problems
    from cospan.client.logs.guess import GivenNames, guessed_mapping
    from cospan.client.logs.mapping import mapping_of
    from cospan.client.logs.tables.sites import file_of

    if not log.is_file():
        raise InvalidValueError(f"there is no file {log}; name the log of one site, as a CSV file with a header")
    if log.stat().st_size > _MOST_BYTES:
        raise InvalidValueError(
            f"{log} has {log.stat().st_size:,} bytes, and a project begins with a copy of at most {_MOST_BYTES:,}; "
            "give its first rows in a file of their own"
        )
    table = file_of(log)
    text = guessed_mapping([table], columns or GivenNames(), data="logs")
    reports = check_logs(mapping_of(tomllib.loads(text), "the guessed mapping"), [table])
    refuse_problems(reports)
    if reports[0].transitions < _FEWEST_TRANSITIONS:
        raise InvalidValueError(
            f"{log} has {reports[0].transitions} transitions, and nothing can be learnt of so few; give a log of "
            f"{_FEWEST_TRANSITIONS} or more"
        )
    return text


def rendered(name: str, package: str, source: str) -> dict[str, str]:
    """The files of a new folder: text by path, with forward slashes."""
    root = files("cospan.cli.tools").joinpath("templates", source)
    names = (("@package@", package), ("@name@", name))

    def named(text: str) -> str:
        for token, value in names:
            text = text.replace(token, value)
        return text

    found: dict[str, str] = {}

    def gather(folder: Traversable, before: str) -> None:
        for entry in sorted(folder.iterdir(), key=lambda each: each.name):
            if entry.is_dir():
                gather(entry, f"{before}{named(entry.name)}/")
            elif entry.name.endswith(_TEMPLATE):
                plain = entry.name.removesuffix(_TEMPLATE)
                found[before + _HIDDEN.get(plain, named(plain))] = named(entry.read_text(encoding="utf-8"))

    gather(root, "")
    return found


def _check_free(folder: Path) -> None:
    """Raises RunFileError unless there is nothing of this name, or an empty folder."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise RunFileError(f"{folder} exists and is a file; take another name, or remove it")
    if any(folder.iterdir()):
        raise RunFileError(f"the folder {folder} exists and is not empty; take another name, or empty it")


def _write_whole(folder: Path, contents: dict[str, str], copied: dict[str, Path]) -> list[str]:
    """Writes all files, or none: beside the folder first.

    Raises:
        RunFileError: they cannot be written, or the folder was made meanwhile.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        aside.mkdir()
        for path, text in contents.items():
            place = aside / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        for path, source in copied.items():
            place = aside / path
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
        aside.rename(folder)  # also onto an empty folder, and onto nothing else
    except OSError as failure:
        raise RunFileError(f"cannot write the folder {folder}: {failure.strerror}; nothing was made") from failure
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return [*contents, *copied]
