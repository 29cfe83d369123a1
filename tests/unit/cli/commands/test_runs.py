"""`cospan runs`: every run of a folder, with what became of it."""

import json
import os
from pathlib import Path

import pytest
from runs import specification
from stored import NAME, RUN_ID, basis_after, contents, read_only_folder, round_of, served, stored_run
from unit.cli.run_folder.test_stored_run import end, go_on

from cospan.cli.commands.runs import describe, list_runs
from cospan.cli.run_folder.layout import COMPARISON, RunFolder, check_free, make_run_folder, point_to_newest
from cospan.cli.settings.layers import Settings
from cospan.server.storage.writer import KEEP_EVERY
from cospan.wire.errors import RunFileError
from cospan.wire.messages import FinishCause


def in_process(folder: Path, rounds: int = 5, cause: str = "rounds-reached") -> Path:
    """A run without a stored round; its folder."""
    made = make_run_folder(folder, workload="tests")
    made.write_spec(specification(rounds=5))
    made.write_basis(basis_after(rounds), run_id="of no store", rounds=rounds)
    values = {"finish_cause": cause, "run_id": "of no store", "rounds": rounds, "agents": 2, "message": "it ended"}
    made.write_result(values)
    return folder


# Which run to go on with --------------------------------------------------------------------------------


def test_what_a_killed_beginning_leaves_does_not_fill_a_folder(tmp_path: Path) -> None:
    for name in (f".{NAME}.lock", f".{NAME}.new"):
        (tmp_path / name).write_bytes(b"")
    check_free(tmp_path)
    (tmp_path / ".hidden").write_bytes(b"")
    with pytest.raises(RunFileError, match="is not empty"):
        check_free(tmp_path)


def test_how_often_a_basis_is_kept_has_one_default() -> None:
    assert Settings.model_fields["checkpoint_interval"].default == KEEP_EVERY


# cospan runs --------------------------------------------------------------------------------------------


def test_every_run_of_a_folder_is_listed_with_what_became_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    point_to_newest(RunFolder(go_on(tmp_path / "goes-on")))
    end(tmp_path / "stopped", 2, FinishCause.STOPPED, "an operator stopped it")
    end(tmp_path / "failed", 1, FinishCause.FAILED, "round 1 gave no finite basis")
    end(tmp_path / "done", 4, FinishCause.ROUNDS_REACHED)
    in_process(tmp_path / "in-process")
    in_process(tmp_path / "deserted", 2, "no-agents")
    make_run_folder(tmp_path / "unfinished", workload="x").write_spec(specification())
    make_run_folder(tmp_path / "compared", workload="x").write_spec(specification())
    (tmp_path / "compared" / COMPARISON).write_text("{}")
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "running").mkdir()
    with served(tmp_path / "running" / NAME) as store:
        store.write([round_of(0)])
        assert list_runs(tmp_path, json=True) == 0
    found = {line["path"].removeprefix(f"{tmp_path}/"): line for line in json.loads(capsys.readouterr().out)}
    assert {name: (line["state"], line["rounds"], line["agents"]) for name, line in found.items()} == {
        "goes-on": ("resumable", 3, 2),
        "stopped": ("stopped", 2, 2),
        "failed": ("failed", 1, 2),
        "done": ("finished", 4, 2),
        "in-process": ("finished", 5, 2),
        "deserted": ("ended", 2, 2),
        "unfinished": ("unfinished", None, None),
        "compared": ("finished", None, None),
        "running": ("running", 1, 2),
    }
    assert found["running"]["process"] == str(os.getpid())
    assert found["stopped"]["message"] == "an operator stopped it"
    assert found["goes-on"]["run_id"] == RUN_ID
    assert found["goes-on"]["kept_rounds"] == [0, 1, 2, 3]
    assert found["goes-on"]["started"] <= found["goes-on"]["last_change"]
    assert list_runs(tmp_path, json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["run", "id", "workload", "state", "rounds"]
    assert "stopped: an operator stopped it" in lines
    assert any(line.split()[:5] == ["goes-on", RUN_ID, "tests", "resumable", "3"] for line in lines)


def test_one_run_is_listed_with_the_bases_it_has_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    stored_run(tmp_path / "run", 12, checkpoint_interval=4)
    before = contents(tmp_path / "run")
    assert list_runs(tmp_path / "run", json=False) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "bases kept, after rounds: 0, 4, 8, 10-12"
    assert contents(tmp_path / "run") == before


def test_a_damaged_run_is_listed_with_the_reason_beside_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go_on(tmp_path / "whole")
    for name, data in (("garbage", b"garbage" * 1000), ("empty", b"")):
        (tmp_path / name).mkdir()
        (tmp_path / name / NAME).write_bytes(data)
    for name, text in (("no-json", "{"), ("no-document", "[]"), ("no-cause", "{}")):
        in_process(tmp_path / name)
        (tmp_path / name / "result.json").write_text(text)
    in_process(tmp_path / "no-spec")
    (tmp_path / "no-spec" / "spec.toml").unlink()
    assert list_runs(tmp_path, json=True) == 0
    found = {Path(line["path"]).name: line for line in json.loads(capsys.readouterr().out)}
    assert found.pop("whole")["state"] == "resumable"
    assert {line["state"] for line in found.values()} == {"unreadable"}
    assert len(found) == 6
    assert all(line["message"] for line in found.values())
    assert "cannot be read as a stored run" in found["garbage"]["message"]
    assert list_runs(tmp_path, json=False) == 0


def test_a_run_that_may_not_be_looked_into_is_listed() -> None:
    with read_only_folder() as folder:
        go_on(folder / "mine")
        (folder / "mine").chmod(0)
        line = describe(folder / "mine")
        (folder / "mine").chmod(0o700)
    assert line.state == "unreadable"
    assert "Permission denied" in str(line.note)


def test_where_there_are_no_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert list_runs(tmp_path, json=False) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path}\n"
    assert list_runs(tmp_path, json=True) == 0
    assert json.loads(capsys.readouterr().out) == []
    with pytest.raises(RunFileError, match="there is no folder runs; name a folder of runs, or that of one run"):
        list_runs(None, json=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFileError, match="file is a file; name a folder of runs"):
        list_runs(tmp_path / "file", json=False)
