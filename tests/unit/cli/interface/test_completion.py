"""What is completed, and what every `--help` shows."""

import pytest
import typer
from behaviour.command import ROOT, in_this_process

from cospan.cli.interface import commands, completion
from cospan.cli.interface.setting_options import LEARNING_RULE
from cospan.cli.main import app
from cospan.cli.settings.layers import Settings
from cospan.client.workloads import BUILT_IN


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
