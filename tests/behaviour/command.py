"""The command `cospan`, in processes of its own and in this one, as tests start it."""

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import SECONDS

from cospan.cli import main as entry

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOY = "toy_workload:workload"
UNHURRIED = "toy_workload:unhurried"
"""The same, at thirty rounds a second at most."""
TINY = ("--agents", "3", "--rounds", "20", "--rank", "1")
"""As few agents as are not warned of."""


def environment(**more: str) -> dict[str, str]:
    """This one's, without settings. A run draws no pictures, most of its CPU time, unless COSPAN_PICTURES is 1."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COSPAN_")}
    return {**kept, "PYTHONPATH": str(HERE), "NO_COLOR": "1", "COSPAN_PICTURES": "0", **more}


@contextlib.contextmanager
def started(*arguments: str, cwd: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A `cospan` process; it is killed where the test has not seen its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cospan.cli.main", *arguments],
        cwd=cwd,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], seconds: float = SECONDS) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a process that ends by itself."""
    out, err = process.communicate(timeout=seconds)
    assert "Traceback" not in out + err
    return process.returncode, out, err


def cospan(*arguments: str, cwd: Path, **more: str) -> tuple[int, str, str]:
    with started(*arguments, cwd=cwd, **more) as process:
        return ended(process)


def line_of(process: subprocess.Popen[str], text: str) -> str:
    """The next line of standard output that holds `text`."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"it ended without saying {text!r}: {process.communicate()}")


def in_this_process(*arguments: str) -> object:
    """The exit code of a command that runs in this process."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("COSPAN_PICTURES", os.environ.get("COSPAN_PICTURES", "0"))
        with pytest.raises(SystemExit) as end:
            entry.main(list(arguments))
    return end.value.code


def result_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return document


def wait_for_site(fifo: Path) -> int:
    """Waits until the site says so; the number of its process, of the first where several have said it."""
    descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        ready, _, _ = select.select([descriptor], [], [], SECONDS)
        assert ready, "the site never came to its mark"
        os.set_blocking(descriptor, True)
        return int(os.read(descriptor, 100).split()[0])
    finally:
        os.close(descriptor)
