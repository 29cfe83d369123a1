"""`cospan report`: the page of a run from its folder, and what it says where there is none."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cospan.cli.commands.report import compared, report_frame
from cospan.cli.main import main
from cospan.cli.run_folder.agent_results import saved_agents
from cospan.cli.run_folder.layout import RunFolder
from cospan.client.value_function import ValueFunction
from cospan.dashboard.analysis.learnt import LEARNT_COLUMNS
from cospan.dashboard.payloads import AGENT_COLUMNS
from cospan.dashboard.series import COLUMNS
from cospan.wire.errors import RunFileError
from cospan.wire.files.npz import save_npz


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
    errors, alone = frame["run"]["errors"], result["baselines"]
    assert (errors["subspace"], errors["value"]) == (result["subspace_error"], result["value_error"])
    assert (errors["lstd_alone"], errors["td_alone"]) == (alone["lstd_alone"], alone["td_alone"])
    assert [point[0] for point in frame["series"]["points"]] == list(range(12))
    rows = [dict(zip(AGENT_COLUMNS, row, strict=True)) for row in frame["agents"]]
    numbers = [dict(zip(LEARNT_COLUMNS, row, strict=True)) for row in frame["learnt"]]
    assert [row["id"] for row in rows] == [row["id"] for row in numbers] == ["site-0", "site-1", "site-2"]
    for row, learnt, said in zip(rows, numbers, result["per_agent"], strict=True):
        for name in ("value_error", "ratio", "mean_reward", "gain", "shared_weight"):
            assert learnt[name] == pytest.approx(said[name], rel=1e-3), name
        assert learnt["lstd_alone"] == pytest.approx(said["lstd_alone_error"], rel=1e-3)
        assert row["td_error"] > 0.0
        assert (row["reconnects"], row["rejected"]) == (None, None), "no file keeps them"
        *_, last = frame["histories"][row["id"]]["points"]
        assert (last[0], last[2]) == (11, learnt["value_error"])
    points = [dict(zip(COLUMNS, point, strict=True)) for point in frame["series"]["points"]]
    assert all(point["value_low"] <= point["value_error"] <= point["value_high"] for point in points)
    assert points[-1]["elapsed"] == pytest.approx(result["seconds"], rel=0.5)
    answers = {answer["key"]: answer for answer in frame["answers"]}
    assert (answers["learning"]["verdict"], answers["slow"]["verdict"]) == ("Finished", "None missed a round")
    worse = [said["id"] for said in result["per_agent"] if said["ratio"] > 1.0]
    assert sorted(answers["alone"]["agents"]) == worse
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


def test_two_runs_are_drawn_beside_each_other(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    assert compared(RunFolder(other))["run"]["name"] == "other"
    output = tmp_path / "two.html"
    assert cospan(["report", str(folder), str(other), "--output", str(output)]) == 0
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', output.read_text(encoding="utf-8")
    )
    assert found is not None
    frame = json.loads(found[1])
    assert (frame["run"]["name"], frame["other"]["run"]["name"]) == ("run", "other")
    assert frame["other"]["series"] == frame["series"]
    assert cospan(["report", *[str(folder)] * 3, "--output", str(tmp_path / "three.html")]) == 2
    assert "a report shows one run or two, and 3 are named" in capsys.readouterr().err


def test_a_damaged_curve_is_left_out_and_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path / "run")
    path = tmp_path / "run" / "agents" / "site-1.npz"
    with np.load(path) as values:
        arrays = dict(values)
    save_npz(path, **(arrays | {"curve_round": arrays["curve_round"][::-1]}))
    frame = report_frame(RunFolder(tmp_path / "run"))
    assert set(frame["histories"]) == {"site-0", "site-2"}
    assert len(frame["agents"]) == 3, "result.json has it"
    assert "do not ascend; the file is damaged; it is left out of the report" in capsys.readouterr().err


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


def test_large_groups_leave_one_file_each_and_the_report_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their agents have no files of their own; the numbers are those of a run whose agents have."""
    arguments = ["run", "queues", "--in-process", "--agents", "5", "--processes", "2", "--rounds", "9", "--quiet"]
    assert cospan([*arguments, "--output", str(tmp_path / "own")]) == 0
    monkeypatch.setattr("cospan.client.group.MOST_OWN_FILES", 2)
    assert cospan([*arguments, "--output", str(tmp_path / "large")]) == 0
    files = {path.name for path in (tmp_path / "large" / "agents").iterdir()}
    assert files == {"group-0..1.npz", "group-2..4.npz", "site-0.npz", "site-1.npz"}
    own, large = (report_frame(RunFolder(tmp_path / name)) for name in ("own", "large"))
    for name in ("agents", "learnt", "histories"):
        assert own[name] == large[name], name
    assert "left out" not in capsys.readouterr().err
    assert [saved_agents(RunFolder(tmp_path / name)) for name in ("own", "large")] == [5, 5]
    series = [result_of(tmp_path / name) for name in ("own", "large")]
    assert series[0]["per_agent"] == series[1]["per_agent"]
    own_values, values = (
        ValueFunction.load(tmp_path / "own" / "agents" / "site-3.npz"),
        ValueFunction.load(tmp_path / "large" / "agents" / "group-2..4.npz", agent="site-3"),
    )
    np.testing.assert_array_equal(own_values.values([1, 7]), values.values([1, 7]))
