"""Completion as shells ask for it, and what every `--help` shows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from behaviour.test_cli import ROOT, in_this_process

from cospan.cli.interface import commands, completion
from cospan.cli.interface.setting_options import LEARNING_RULE
from cospan.cli.main import app
from cospan.cli.settings.layers import Settings
from cospan.client.workloads import BUILT_IN

ASKED = {
    "bash": lambda words: {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
    "zsh": lambda words: {"_TYPER_COMPLETE_ARGS": words},
    "fish": lambda words: {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


def cospan(*arguments: str, cwd: Path, **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COSPAN_")}
    done = subprocess.run(
        [sys.executable, "-m", "cospan.cli.main", *arguments],
        cwd=cwd, env=environment | more, capture_output=True, text=True, check=False, timeout=60,
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


def test_what_is_completed_is_what_there_is() -> None:
    assert set(completion.WORKLOADS) == set(BUILT_IN)
    options = {option.name: option for option in LEARNING_RULE}
    assert set(options["aggregation"].values) == {"mean", "clipped", "trimmed", "geometric-median"}
    for name in ("preset", "head_update", "aggregation"):
        described = Settings.model_fields[name].description or ""
        assert set(described.replace(" or ", ", ").split(", ")) == set(options[name].values)
    toml = {path.stem for path in (ROOT / "lab/cospan/experiments/specs").glob("*.toml")}
    assert set(completion.experiments("")) == toml
    assert completion.run_folders("nowhere/x") == []


def paths() -> list[tuple[str, ...]]:
    """Every command, those of groups included."""
    top = typer.main.get_command(app)
    found: list[tuple[str, ...]] = [()]
    for name, command in top.commands.items():  # type: ignore[attr-defined]
        found += [(name,), *((name, below) for below in getattr(command, "commands", {}))]
    return found


@pytest.mark.parametrize("path", paths(), ids=" ".join)
def test_every_help_fits_eighty_columns_with_an_example_and_exit_codes(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("COLUMNS", "TERMINAL_WIDTH"):
        monkeypatch.setenv(name, "80")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    assert in_this_process(*path, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert f"Usage: {' '.join(('cospan', *path))}" in text
    assert "Example: cospan " in text
    assert "Exit codes: 0" in text or path in {(name,) for name, *_ in commands.GROUPS}
    assert "…│" not in text, "nothing is cut"
