"""Commands in folders that hold what others have put there: real processes, and what they must not do."""

import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from runs import SECONDS

HERE = Path(__file__).parent
"""Until then every command here has ended, or its test fails."""
HIJACKERS = ("queue", "numpy", "matplotlib", "typer", "asyncio", "sitecustomize", "usercustomize", "grpc", "cospan")
"""Modules of Python, of others and of ours that everything here imports."""
NARROW = 'umask 077; ulimit -Sn 24; exec "$@"'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder whose files stand in for modules, and tell where they were imported."""
    for name in HIJACKERS:
        mark = str(tmp_path / f"hijacked-by-{name}")
        (tmp_path / f"{name}.py").write_text(f"import os\nos.mkdir({mark!r})\n")
    return tmp_path


def cospan(folder: Path, command: Sequence[str], *, under: str = "") -> tuple[int, str]:
    """Exit code, and what was said."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COSPAN_", "PYTHON"))}
    done = subprocess.run(
        [*(("sh", "-c", under, "sh") if under else ()), *command],
        cwd=folder,
        env={**kept, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_workload_of_the_working_folder_is_all_that_is_imported_from_it(folder: Path) -> None:
    """By the command and by its children. Few open files and a strict umask are no reason to fail, either."""
    source = (HERE / "toy_workload.py").read_text(encoding="utf-8")
    (folder / "own_fleet.py").write_text(source, encoding="utf-8")
    script = Path(sys.executable).with_name("cospan")
    size = ("--agents", "2", "--rounds", "3", "--rank", "1")
    command = [str(script), "run", "own_fleet:workload", *size, "--output", "run", "--quiet"]
    code, said = cospan(folder, command, under=NARROW)
    assert code == 0, said
    assert not list(folder.glob("hijacked*"))
    made = [path for path in (folder / "run").rglob("*") if path.is_file()]
    assert {"coordinator.sqlite", "spec.toml", "site-1.npz", "log.jsonl"} <= {path.name for path in made}
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}


def test_nothing_is_imported_from_the_working_folder_for_a_built_in_workload(folder: Path) -> None:
    command = [sys.executable, "-m", "cospan.cli.main", "run", "queues", "--in-process"]
    (folder / "cospan.py").unlink()  # before a line of ours is executed, `python -m` looks for the module itself
    code, said = cospan(folder, [*command, "--agents", "2", "--rounds", "3", "--output", "run", "--quiet"])
    assert code == 0, said
    assert (folder / "run" / "convergence.png").exists()
    assert not list(folder.glob("hijacked*"))


def test_a_working_folder_that_was_deleted_is_named(tmp_path: Path) -> None:
    gone = 'mkdir gone; cd gone; rmdir ../gone; exec "$@"'
    command = [str(Path(sys.executable).with_name("cospan")), "run", "queues", "--in-process", "--quiet"]
    code, said = cospan(tmp_path, command, under=gone)
    assert code == 1
    assert "the working folder was deleted: change to a folder that exists" in said


def test_processes_that_play_for_a_comparison_import_nothing_from_the_working_folder(tmp_path: Path) -> None:
    """`multiprocessing` starts them, and a process of its own, with the working folder first on the path."""
    (tmp_path / "multiprocessing.py").write_text("import os\nos.mkdir('hijacked')\n")
    command = [str(Path(sys.executable).with_name("cospan")), "compare", "queues", "--output", "table"]
    code, said = cospan(tmp_path, [*command, "--agents", "2", "--rounds", "2", "--seeds", "2"])
    assert code == 0, said
    assert not (tmp_path / "hijacked").exists()
