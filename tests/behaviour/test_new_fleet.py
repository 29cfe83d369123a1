"""What `cospan new` makes runs at once: its test passes untouched, and it is clean for a linter."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from runs import SECONDS
from stations import write_stations

from cospan.cli.tools.new_fleet import new_fleet

_BOUND_SECONDS = 10.0
"""What the command promises of the test, as CPU time: this machine may be busy."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    new_fleet("cold-stores")
    return tmp_path / "cold-stores"


def done(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of this Python in the new folder, which is not on its path otherwise."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COSPAN_"))}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_its_test_passes_untouched_and_soon(folder: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    tested = done(folder, "pytest", "-q", "-p", "no:cacheprovider")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "2 passed" in tested.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < _BOUND_SECONDS


@pytest.fixture
def of_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_stations(tmp_path, stations=1, days=30)
    new_fleet("depots", source="csv", log=Path("station-00.csv"))
    return tmp_path / "depots"


def test_a_project_from_a_log_passes_its_test_untouched_and_soon_and_runs(of_log: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    tested = done(of_log, "pytest", "-q", "-p", "no:cacheprovider")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "2 passed" in tested.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < _BOUND_SECONDS
    ran = done(of_log, "cospan.cli.main", "run", "--mapping", "fleet.toml", "--in-process", "--quiet")
    assert ran.returncode == 0, ran.stderr
    value, log = "runs/latest/agents/site-0.npz", "logs/station-00.csv"
    scored = done(of_log, "cospan.cli.main", "score", "--value", value, "--log", log, "--mapping", "fleet.toml")
    assert scored.returncode == 0, scored.stderr
    assert scored.stdout.startswith("stamp,")
    log_file = of_log / log
    log_file.write_text(log_file.read_text(encoding="utf-8").replace("cost", "Cost", 1), encoding="utf-8")
    tested = done(of_log, "pytest", "-q", "-p", "no:cacheprovider", "-k", "learnt_from")
    assert tested.returncode == 1
    assert "has no column 'cost' (is it 'Cost'?)" in tested.stdout


def test_its_test_fails_where_a_promise_is_broken(folder: Path) -> None:
    environment = folder / "cold_stores" / "environment.py"
    text = environment.read_text(encoding="utf-8")
    broken = text.replace("self.np_random.random()", "np.random.random()")
    assert broken != text
    environment.write_text(broken, encoding="utf-8")
    tested = done(folder, "pytest", "-q", "-p", "no:cacheprovider", "-k", "promises")
    assert tested.returncode == 1
    assert "made twice from seed 0 and index 0, the site differs" in tested.stdout


def test_the_command_of_its_readme_runs(folder: Path) -> None:
    ran = done(folder, "cospan.cli.main", "run", "cold_stores:workload", "--in-process", "--quiet", "--rounds", "5")
    assert ran.returncode == 0, ran.stderr
    assert "warning" not in ran.stderr
    assert (folder / "runs" / "latest" / "agents" / "site-7.npz").exists()


@pytest.mark.parametrize("made", ["folder", "of_log"])
def test_linters_find_nothing(made: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(made)
    options = ("--isolated", "--line-length", "116", "--select", "E,F,W,I,B,UP,SIM,RUF")
    linted = done(folder, "ruff", "check", *options, "--no-cache", ".")
    assert linted.returncode == 0, linted.stdout
    formatted = done(folder, "ruff", "format", "--isolated", "--line-length", "116", "--check", "--no-cache", ".")
    assert formatted.returncode == 0, formatted.stdout
