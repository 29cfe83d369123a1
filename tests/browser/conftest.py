"""A browser, and one live run for all of these tests.

`make browser-test` fetches what this needs: Chromium, and axe-core into build/browser.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browser.own_network import enter_own_network
from browser.watch import AGENTS

sync_api = pytest.importorskip("playwright.sync_api", reason="make browser-test installs it")
COSPAN = [sys.executable, "-m", "cospan.cli.main"]


@dataclass(frozen=True)
class Live:
    """A run: the address of its dashboard, its process, and its folder."""

    url: str
    process: "subprocess.Popen[str]"
    folder: Path


def pytest_sessionstart() -> None:
    """Before anything is started; a developer who is not root shares the network of the machine."""
    enter_own_network()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What ends the run comes last, in whatever order the files are named."""
    items.sort(key=lambda item: item.path.name == "test_finished.py")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path is not None, "there is no Chromium; make browser-test installs it"
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A run of twelve microgrids without an end, one of them slow."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    command = [
        *COSPAN, "run", "browser.paced_microgrids:workload", "--agents", str(AGENTS), "--rounds", "0",
        "--seed", "1", "--agent-restarts", "0", "--session-timeout-seconds", "5",
        "--dashboard", "127.0.0.1:0", "--output", str(folder),
    ]  # fmt: skip
    path = {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | path
    )
    assert process.stdout is not None
    deadline = threading.Timer(180, process.kill)
    deadline.start()
    lines = []
    while "dashboard: " not in (line := process.stdout.readline()):
        lines.append(line)
        assert line, f"no dashboard was named: {lines}"
    deadline.cancel()
    found = re.search(r"dashboard: (http://\S+)", line)
    assert found is not None
    reader = threading.Thread(target=process.stdout.read)
    reader.start()
    yield Live(found[1], process, folder)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    process.wait(180)
    reader.join(10)
    process.stdout.close()


@pytest.fixture(scope="session")
def short_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two short runs that are over, which differ in their seed."""
    folders = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp("short") / f"seed-{seed}"
        command = [
            *COSPAN, "run", "synthetic", "--in-process", "--agents", "6", "--rounds", "40", "--seed", str(seed),
            "--quiet", "--output", str(folder),
        ]  # fmt: skip
        subprocess.run(command, check=True, timeout=180)
        folders.append(folder)
    return folders[0], folders[1]
