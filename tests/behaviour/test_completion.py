"""Completion as shells ask for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import SECONDS

ASKED = {
    "bash": lambda words: {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
    "zsh": lambda words: {"_TYPER_COMPLETE_ARGS": words},
    "fish": lambda words: {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


def cospan(*arguments: str, cwd: Path, **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COSPAN_")}
    done = subprocess.run(
        [sys.executable, "-m", "cospan.cli.main", *arguments],
        cwd=cwd, env=environment | more, capture_output=True, text=True, check=False, timeout=SECONDS,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def completed(shell: str, words: str, cwd: Path) -> set[str]:
    """What a shell is offered for the last of some words, which it has typed so far."""
    out = cospan(cwd=cwd, _COSPAN_COMPLETE=f"complete_{shell}", **ASKED[shell](words))
    plain = out.replace("_arguments '*: :((", "").replace("))'", "").replace('"', "")
    return {line.split("\t")[0].split(":")[0].strip() for line in plain.splitlines() if line.strip()}


@pytest.mark.parametrize("shell", ASKED)
def test_shells_complete_commands_workloads_presets_and_runs(shell: str, tmp_path: Path) -> None:
    (tmp_path / "runs" / "20260101T000000Z-queues").mkdir(parents=True)
    (tmp_path / "runs" / "20260101T000000Z-queues" / "spec.toml").touch()
    (tmp_path / "runs" / "no-run").mkdir()
    assert {"coordinator", "compare"} <= completed(shell, "cospan co", tmp_path)
    assert completed(shell, "cospan run q", tmp_path) == {"queues"}
    assert completed(shell, "cospan run queues --preset p", tmp_path) == {"paper", "practical"}
    assert completed(shell, "cospan export runs/2", tmp_path) == {"runs/20260101T000000Z-queues"}
    assert completed(shell, "cospan report runs/2", tmp_path) == {"runs/20260101T000000Z-queues"}
    assert completed(shell, "cospan reproduce linear", tmp_path) == {"linear-speedup"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_shown(shell: str, tmp_path: Path) -> None:
    # How typer is told the shell where there is none to be detected.
    script = cospan("--show-completion", shell, cwd=tmp_path, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert f"_COSPAN_COMPLETE=complete_{shell}" in script
