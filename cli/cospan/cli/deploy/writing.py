"""Writes or prints the files of a deployment, and says what comes next."""

from collections.abc import Mapping
from pathlib import Path

from cospan.cli.run_folder.layout import write_text
from cospan.wire.console import say
from cospan.wire.errors import InvalidValueError, RunFileError

_CHART = "chart/"


def deliver(made: Mapping[str, str], output: Path | None, *, dry_run: bool, force: bool) -> int:
    """Prints the files, or writes them to a folder; the exit code.

    Args:
        made: text by path, with forward slashes.
        output: the folder; made if it does not exist.
        dry_run: whether to print them in place of writing.
        force: whether existing files are overwritten.

    Raises:
        InvalidValueError: neither a folder nor a dry run is asked for.
        RunFileError: a file exists, or cannot be written.
    """
    if dry_run:
        for path, text in made.items():
            if not path.startswith(_CHART):
                print(f"# ==> {path}\n{text}")
        further = sum(path.startswith(_CHART) for path in made)
        if further:
            print(f"# ==> {_CHART} has {further} files")
        return 0
    if output is None:
        raise InvalidValueError("output is not set; name the folder with --output, or print with --dry-run")
    if output.exists() and not output.is_dir():
        raise RunFileError(f"{output} is a file; name another folder with --output")
    existing = [path for path in made if (output / path).exists()]
    if existing and not force:
        raise RunFileError(
            f"{output / existing[0]} exists{_and_more(len(existing) - 1)}; name another folder, or overwrite with "
            "--force"
        )
    for path, text in made.items():
        place = output / path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            raise RunFileError(f"cannot make the folder {place.parent}: {failure.strerror}") from failure
        write_text(place, text)
        if path.endswith(".sh"):
            place.chmod(place.stat().st_mode | 0o111)
    names = _named(made)
    which = "its first lines say" if len(names) == 1 else "the first lines of each say"
    say(f"{output}/ has {', '.join(names)}; {which} what to do", error=False)
    return 0


def _and_more(count: int) -> str:
    return f", and {count} more" if count else ""


def _named(made: Mapping[str, str]) -> list[str]:
    """The files, with one name for those of the chart."""
    names = [path for path in made if not path.startswith(_CHART)]
    return [*names, _CHART] if len(names) < len(made) else names
