"""Every experiment at tiny size: it runs, its results have their schema, and the effect has its sign."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from cospan.cli import main as entry
from cospan.experiments.experiment import DEEP, MODULES, load
from cospan.experiments.reproduce import BEGIN, END, FORMAT
from cospan.experiments.runner import COLUMNS

ROOT = Path(__file__).resolve().parents[2]


def in_this_process(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        entry.main(list(arguments))
    return int(end.value.code or 0)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in DEEP])
def test_an_experiment_shows_its_sign_at_tiny_size(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    over_grpc = () if name == "linear-speedup" else ("--in-process",)
    assert in_this_process("reproduce", name, "--tiny", "--quiet", "--output", str(folder), *over_grpc) == 0
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    assert (results["format"], results["experiment"]) == (FORMAT, name)
    assert results["plan"] == load(name)[0].made_tiny().fingerprint
    assert results["findings"]
    for finding in results["findings"]:
        assert {"name", "text", "value", "low", "high", "holds", "sign"} == set(finding)
        assert finding["sign"] is not False, finding["text"]
    assert any(finding["sign"] for finding in results["findings"])
    for table in results["tables"]:
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert (folder / "results.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "picture.svg").read_text().rstrip().endswith("</svg>")
    assert (folder / "figures.md").read_text().startswith(BEGIN)
    if name == "linear-speedup":
        assert "bit for bit" in results["notes"][0]


@pytest.mark.parametrize("name", MODULES)
def test_a_page_has_the_figures_of_the_plan_that_is_shipped(name: str) -> None:
    """A changed spec file needs new results: `cospan reproduce NAME --pages docs/experiments`."""
    page = (ROOT / "docs" / "experiments" / f"{name}.md").read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert f"<!-- plan {load(name)[0].fingerprint};" in page
    assert f"![]({name}.svg)" in page.replace(f"![{name}]", "![]")
    assert (ROOT / "docs" / "experiments" / f"{name}.svg").exists()


def test_figures_go_into_a_page_and_leave_its_words(tmp_path: Path) -> None:
    page = tmp_path / "heterogeneity.md"
    page.write_text(f"# Title\n\n{BEGIN}\nfigures of a year ago\n{END}\n\nWords.\n")
    arguments = ("reproduce", "heterogeneity", "--tiny", "--quiet", "--output", str(tmp_path / "out"))
    assert in_this_process(*arguments, "--pages", str(tmp_path)) == 0
    text = page.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("Words.\n")
    assert "a year ago" not in text
    assert (tmp_path / "out" / "figures.md").read_text().strip() in text
    assert (tmp_path / "heterogeneity.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("linear-speed",), "there is no experiment 'linear-speed'; take one of linear-speedup, misaligned,"),
        (("rank", "--tiny", "--in-process", "--quiet", "--pages", "nowhere"), "nowhere/rank.md cannot be read"),
    ],
)
def test_a_wrong_use_is_one_sentence(
    arguments: tuple[str, ...],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_this_process("reproduce", *arguments) in (1, 2)
    error = capfd.readouterr().err.splitlines()
    assert len(error) == 1
    assert text in error[0]


def test_a_control_experiment_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """tests/deep runs them, where it is installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("jax", "optax") else found(name))
    assert in_this_process("reproduce", "cartpole-control", "--tiny", "--quiet") == 2
    assert capfd.readouterr().err.splitlines() == [
        "cospan: cospan reproduce cartpole-control needs jax and optax; pip install '.[deep]'"
    ]


def test_without_a_name_the_experiments_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert in_this_process("reproduce") == 0
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == list(MODULES)
