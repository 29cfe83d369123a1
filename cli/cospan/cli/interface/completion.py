"""What the shell can complete beside the names of commands and options: workloads, presets, experiments, runs.

Nothing heavy is imported: a shell waits for every answer.
"""

from collections.abc import Callable
from pathlib import Path

WORKLOADS = ("acrobot", "microgrids", "queues", "synthetic", "synthetic-common-reward")
"""The built-in ones; a test compares them with those that there are."""
_RUNS = Path("runs")
_MARKS = ("coordinator.sqlite", "result.json", "spec.toml")
"""A folder with one of these files is that of a run."""
_MOST_RUNS = 200


def one_of(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Completes to one of some names."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def experiments(incomplete: str) -> list[str]:
    """The experiments of `cospan reproduce`."""
    from importlib.resources import files  # takes as long to import as all options take to make

    folder = files("cospan.experiments").joinpath("specs")
    names = sorted(each.name.removesuffix(".toml") for each in folder.iterdir() if each.name.endswith(".toml"))
    return [name for name in names if name.startswith(incomplete)]


def run_folders(incomplete: str) -> list[str]:
    """Folders of runs: those in `runs`, the newest first, or those in the folder that is typed so far."""
    typed = Path(incomplete)
    parent = (typed if incomplete.endswith("/") else typed.parent) if "/" in incomplete else _RUNS
    try:
        found = [path for path in parent.iterdir() if any((path / mark).exists() for mark in _MARKS)]
    except OSError:
        return []
    names = sorted((str(path) for path in found), reverse=True)[:_MOST_RUNS]
    return [name for name in names if name.startswith(incomplete)]
