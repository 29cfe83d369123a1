"""The pages of `--help` and `--help-all`."""

import pytest
import typer
from behaviour.command import in_this_process

from cospan.cli.interface import commands
from cospan.cli.interface.frequent_options import FREQUENT
from cospan.cli.main import app


def paths() -> list[tuple[str, ...]]:
    """Every command, those of groups included."""
    top = typer.main.get_command(app)
    found: list[tuple[str, ...]] = [()]
    for name, command in top.commands.items():  # type: ignore[attr-defined]
        found += [(name,), *((name, below) for below in getattr(command, "commands", {}))]
    return found


GROUPS = {(), *((name,) for name, *_ in commands.GROUPS)}


def page(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert in_this_process(*arguments) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("path", paths(), ids=" ".join)
def test_every_help_fits_eighty_columns_with_an_example_and_exit_codes(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    first = page(capsys, *path, "--help")
    whole = first if path in GROUPS else page(capsys, *path, "--help-all")
    for text in (first, whole):
        assert max(map(len, text.splitlines())) <= 80
        words = " ".join(text.split())
        assert f"Usage: {' '.join(('cospan', *path))}" in words
        assert "Example: cospan " in words
        assert "\x1b" not in text, "it is no terminal"
    assert "Exit codes: 0" in whole or path in GROUPS
    assert ("--help-all" in first) == (" ".join(path) in FREQUENT)


@pytest.mark.parametrize("path", FREQUENT)
def test_frequent_options_are_options_of_their_command(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(set(FREQUENT[path])) == len(FREQUENT[path]) <= 13
    text = page(capsys, *path.split(), "--help-all")
    assert not [name for name in FREQUENT[path] if f"--{name} " not in text and f"--{name}," not in text]


def test_help_all_leaves_nothing_out_and_goes_first(capsys: pytest.CaptureFixture[str]) -> None:
    text = page(capsys, "run", "--rounds", "many", "--help-all")
    groups = ("The fleet:", "The learning rule:", "Whom a round waits for:", "Addresses:", "Files and output:")
    assert [text.index(f"\n{name}\n") for name in groups] == sorted(text.index(f"\n{name}\n") for name in groups)
    assert "--follow-stdin" not in text, "it is for child processes"


def test_a_page_has_no_defaults_that_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    text = page(capsys, "coordinator", "--help-all")
    assert "[default: none]" not in text
    assert "[default: 15051]" in " ".join(text.split())
