"""Shell completion of workloads, presets, experiments and runs.

It imports nothing slow, because the shell waits for each answer.
"""

from collections.abc import Callable
from pathlib import Path

WORKLOADS = ("acrobot", "microgrids", "queues", "synthetic", "synthetic-common-reward")
"""The built-in workloads; a test compares them with the real ones."""
TRACKERS = ("tensorboard", "mlflow")
ENGINES = ("local", "ray")
"""Of `cospan run`; a test compares them with the real ones."""
_RUNS = Path("runs")
_MARKS = ("coordinator.sqlite", "result.json", "spec.toml")
"""A folder with one of these files is a run folder."""
_MOST_RUNS = 200


def one_of(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Completes to one of some names."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def experiments(incomplete: str) -> list[str]:
    """The experiments of `cospan reproduce`."""
    from importlib.resources import files  # slow to import

    folder = files("cospan.experiments").joinpath("specs")
    names = sorted(each.name.removesuffix(".toml") for each in folder.iterdir() if each.name.endswith(".toml"))
    return [name for name in names if name.startswith(incomplete)]


def run_folders(incomplete: str) -> list[str]:
    """Run folders in `runs`, the newest first, or in the folder typed so far."""
    typed = Path(incomplete)
    parent = (typed if incomplete.endswith("/") else typed.parent) if "/" in incomplete else _RUNS
    try:
        found = [path for path in parent.iterdir() if any((path / mark).exists() for mark in _MARKS)]
    except OSError:
        return []
    names = sorted((str(path) for path in found), reverse=True)[:_MOST_RUNS]
    return [name for name in names if name.startswith(incomplete)]
