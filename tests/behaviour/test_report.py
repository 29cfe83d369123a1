"""`cospan report`: the page of a run from its folder, and what it says where there is none."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cospan.cli.commands.report import report_frame
from cospan.cli.main import main
from cospan.cli.run_folder.layout import RunFolder
from cospan.dashboard.payloads import AGENT_COLUMNS
from cospan.wire.errors import RunFileError


def cospan(arguments: list[str]) -> object:
    """The exit code of a command that runs in this process."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["run", "synthetic", "--in-process", "--agents", "3", "--rounds", "12", "--quiet"]
    assert cospan([*arguments, "--output", str(path)]) == 0
    return path


def result_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return document


def test_the_report_says_what_the_folder_says(folder: Path) -> None:
    frame, result = report_frame(RunFolder(folder)), result_of(folder)
    assert (frame["run"]["round"], frame["run"]["phase"], frame["run"]["live"]) == (12, "finished", False)
    assert frame["run"]["errors"] == {"subspace": result["subspace_error"], "value": result["value_error"]}
    assert [point[0] for point in frame["series"]["points"]] == list(range(12))
    rows = [dict(zip((*AGENT_COLUMNS, "more"), row, strict=True)) for row in frame["agents"]]
    assert [row["id"] for row in rows] == ["site-0", "site-1", "site-2"]
    for row, learnt in zip(rows, result["per_agent"], strict=True):
        assert row["value_error"] == pytest.approx(learnt["value_error"], rel=1e-3)
        assert row["td_error"] > 0.0
        assert (row["reconnects"], row["rejected"]) == (None, None), "no file keeps them"
        assert row["more"]["Mean reward"] == learnt["mean_reward"]
    assert sum(frame["spectrum"]["shares"]) == pytest.approx(1.0, rel=1e-3)
    assert (frame["spectrum"]["source"], frame["spectrum"]["in_use"]) == ("covariance", result["rank_in_use"])


def test_a_run_without_a_result_and_agents_is_shown_as_far_as_it_is_known(folder: Path, tmp_path: Path) -> None:
    for name in ("spec.toml", "basis.npz", "rounds.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    frame = report_frame(RunFolder(tmp_path))
    assert (frame["run"]["phase"], frame["agents"]) == ("stored", [])
    assert frame["spectrum"]["source"] == "covariance", "basis.npz has it"
    (tmp_path / "rounds.csv").write_text("round,seconds\n1,x\n", encoding="utf-8")
    with pytest.raises(RunFileError, match=r"rounds\.csv is no list of rounds"):
        report_frame(RunFolder(tmp_path))


def test_the_file_is_written_whole_and_over_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report.html"
    arguments = ["report", str(folder), "--output", str(output)]
    assert cospan(arguments) == 0
    assert result_of(folder)["run_id"] in output.read_text(encoding="utf-8")
    assert output.stat().st_size < 3_000_000
    assert cospan(arguments) == 1
    assert "exists; name another file, or give --force" in capsys.readouterr().err
    assert cospan([*arguments, "--force"]) == 0


def test_a_folder_without_a_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cospan(["report", str(tmp_path), "--output", str(tmp_path / "x.html")]) == 1
    assert re.search(r"holds no run; name the folder of one", capsys.readouterr().err)
