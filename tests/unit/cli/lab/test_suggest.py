"""`cospan features suggest`: what it says of its choice, and a mapping that the command's own options made."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from cospan.cli.lab.suggest import suggest_here
from cospan.client.logs.mapping import mapping_of


def log(folder: Path, rows: int, *, wave: bool) -> str:
    rng = np.random.default_rng(0)
    phase = np.cumsum(1.0 + 0.2 * rng.standard_normal(rows)) % 80
    reward = np.cos(2.0 * np.pi * phase / 80) if wave else rng.standard_normal(rows)
    path = folder / "site.csv"
    table = np.column_stack([np.arange(rows), phase, reward])
    np.savetxt(path, table, delimiter=",", header="step,phase,r", comments="")
    return str(path)


def said(capsys: pytest.CaptureFixture[str], path: str) -> str:
    code = suggest_here(path, reward="r", time="step", step="1", columns=None, output=None, force=False)
    assert code == 0
    return capsys.readouterr().out


def test_the_judgement_of_a_finer_map_is_printed_with_its_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(capsys, log(tmp_path, 3000, wave=True))
    assert "learnt from 999 transitions, chosen by the next 999, judged by the last 999" in out
    assert " knots, the coarsest: " in out
    assert "which is beyond chance; suggested: " in out
    assert "±" in out


def test_where_no_finer_map_is_better_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, log(tmp_path, 3000, wave=False))
    assert "no finer map is better" in out
    assert "suggested: 2 knots" in out


def test_what_is_printed_is_a_mapping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Line for line, with a step that is a number in the unit of the time."""
    out = said(capsys, log(tmp_path, 3000, wave=True))
    text = out[out.index("# Suggested by") :]
    mapping = mapping_of(tomllib.loads(text))
    assert mapping.step == 1.0
    assert mapping.observation == ("phase",)
