"""Runs on the disk for people: which one to go on with, what became of each, and a basis as a file of its own."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import specification
from stored import NAME, RUN_ID, basis_after, contents, read_only_folder, round_of, served, stored_run
from values import same

from cospan.cli.commands.export import export_basis
from cospan.cli.commands.runs import describe, list_runs
from cospan.cli.run_folder.layout import RunFolder, check_free, make_run_folder, point_to_newest
from cospan.cli.run_folder.stored_run import check_same_run, run_to_go_on_with
from cospan.cli.settings.layers import Settings
from cospan.core.specification import RunSpecification, basis_digest
from cospan.server.storage.writer import KEEP_EVERY
from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.files.npz import load_npz
from cospan.wire.files.spec_file import from_toml
from cospan.wire.messages import FinishCause


def end(folder: Path, rounds: int, cause: FinishCause, message: str = "it is over") -> Path:
    """A run that is over; its folder."""
    folder.mkdir()
    with served(folder / NAME) as store:
        for number in range(rounds):
            store.write([round_of(number)])
        store.write_end(cause, message, rounds)
    return folder


def go_on(folder: Path, rounds: int = 3) -> Path:
    """A run that can go on; its folder."""
    folder.mkdir()
    stored_run(folder, rounds)
    return folder


def in_process(folder: Path, rounds: int = 5, cause: str = "rounds-reached") -> Path:
    """A run that nobody has stored round by round; its folder."""
    made = make_run_folder(folder, workload="tests")
    made.write_spec(specification(rounds=5))
    made.write_basis(basis_after(rounds), run_id="of no store", rounds=rounds)
    values = {"finish_cause": cause, "run_id": "of no store", "rounds": rounds, "agents": 2, "message": "it ended"}
    made.write_result(values)
    return folder


# Which run to go on with --------------------------------------------------------------------------------


def test_a_folder_with_a_run_goes_on_with_it_and_one_without_begins_anew(tmp_path: Path) -> None:
    found = run_to_go_on_with(go_on(tmp_path / "one"), None, new_run=False)
    assert found is not None
    assert (found.folder, found.state.run_id, found.state.rounds) == (RunFolder(tmp_path / "one"), RUN_ID, 3)
    assert run_to_go_on_with(tmp_path / "nothing", None, new_run=False) is None
    assert run_to_go_on_with(None, None, new_run=False) is None


def test_a_folder_whose_run_is_over_is_no_place_for_another(tmp_path: Path) -> None:
    over = end(tmp_path / "over", 2, FinishCause.STOPPED, "somebody stopped it")
    with pytest.raises(
        InvalidValueError, match=r"holds run 0123456789abcdef, which is over \(somebody stopped it\); name"
    ):
        run_to_go_on_with(over, None, new_run=False)
    with pytest.raises(InvalidValueError, match="holds run 0123456789abcdef; name another for a new run"):
        run_to_go_on_with(go_on(tmp_path / "one"), None, new_run=True)


def test_of_a_folder_of_runs_the_newest_goes_on_unless_it_is_over(tmp_path: Path) -> None:
    assert run_to_go_on_with(None, tmp_path, new_run=False) is None
    point_to_newest(RunFolder(go_on(tmp_path / "one")))
    found = run_to_go_on_with(None, tmp_path, new_run=False)
    assert found is not None
    assert found.folder.path == tmp_path / "one"
    assert run_to_go_on_with(None, tmp_path, new_run=True) is None
    point_to_newest(RunFolder(end(tmp_path / "two", 1, FinishCause.ROUNDS_REACHED)))
    assert run_to_go_on_with(None, tmp_path, new_run=False) is None


def test_a_damaged_newest_run_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    point_to_newest(RunFolder(go_on(tmp_path / "one")))
    (tmp_path / "one" / NAME).write_bytes(b"garbage" * 1000)
    before = contents(tmp_path / "one")
    with pytest.raises(RunFileError, match="cannot be read as a stored run"):
        run_to_go_on_with(None, tmp_path, new_run=False)
    assert contents(tmp_path / "one") == before


def test_a_run_goes_on_only_as_the_one_that_it_was(tmp_path: Path) -> None:
    held = specification(rounds=0)
    found = run_to_go_on_with(go_on(tmp_path / "one"), None, new_run=False)
    assert found is not None
    check_same_run(found, held)
    check_same_run(found, replace(held, feature_fingerprint="fixed by the first agent"))
    changes = {"seed": 2, "rank": 3, "agents": 5, "rounds": 9}
    with pytest.raises(
        InvalidValueError,
        match=r"of which 3 rounds are done, has rank = 2, and 3 is asked for; agents = 2, and 5 is asked for; "
        r"rounds = 0, and 9 is asked for \(and 1 more\): ask for the same to go on with it, or say --new-run",
    ):
        check_same_run(found, replace(held, **changes))  # type: ignore[arg-type]
    other = replace(held, method=replace(held.method, head_step=0.125))
    with pytest.raises(InvalidValueError, match=r"has head_step = .*, and 0.125 is asked for: ask"):
        check_same_run(found, other)


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
    end(tmp_path / "stopped", 2, FinishCause.STOPPED, "somebody stopped it")
    end(tmp_path / "failed", 1, FinishCause.FAILED, "round 1 gave no finite basis")
    end(tmp_path / "done", 4, FinishCause.ROUNDS_REACHED)
    in_process(tmp_path / "in-process")
    in_process(tmp_path / "deserted", 2, "no-agents")
    make_run_folder(tmp_path / "unfinished", workload="x").write_spec(specification())
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
        "running": ("running", 1, 2),
    }
    assert found["running"]["process"] == str(os.getpid())
    assert found["stopped"]["message"] == "somebody stopped it"
    assert found["goes-on"]["run_id"] == RUN_ID
    assert found["goes-on"]["kept_rounds"] == [0, 1, 2, 3]
    assert found["goes-on"]["started"] <= found["goes-on"]["last_change"]
    assert list_runs(tmp_path, json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["run", "id", "workload", "state", "rounds"]
    assert "stopped: somebody stopped it" in lines
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


# cospan export ------------------------------------------------------------------------------------------


def exported(path: Path) -> tuple[np.ndarray, int, RunSpecification]:
    """What is in an exported file, checked against its own sums."""
    values = load_npz(path, "a basis")
    text = from_toml(str(values["specification"]), name="the specification")
    assert str(values["format"]) == "cospan-basis-1"
    assert str(values["basis_sha256"]) == basis_digest(values["basis"])
    assert str(values["specification_digest"]) == text.digest()
    assert str(values["run_id"]) in (RUN_ID, "of no store")
    return values["basis"], int(values["round"]), text


def test_the_last_basis_and_those_that_were_kept_can_be_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    stored_run(tmp_path / "run", 12, checkpoint_interval=4)
    before = contents(tmp_path / "run")
    spec = specification(rounds=0)
    for asked, round_number, basis in (
        (None, 12, basis_after(12)),
        (4, 4, basis_after(4)),
        (0, 0, spec.initial_basis()),
    ):
        output = tmp_path / f"{asked}.npz"
        assert export_basis(tmp_path / "run", output, round_number=asked) == 0
        found = exported(output)
        assert same(found[0], basis)
        assert found[1:] == (round_number, spec)
        assert f"after {round_number} rounds, sha256 {basis_digest(basis)}" in capsys.readouterr().err
    with pytest.raises(
        RunFileError, match="has not kept the basis after 7 rounds; it keeps those of 0, 4, 8, 10-12"
    ):
        export_basis(tmp_path / "run", tmp_path / "7.npz", round_number=7)
    assert contents(tmp_path / "run") == before
    assert not (tmp_path / "7.npz").exists()


def test_an_export_is_read_as_the_basis_of_a_run_folder_is(tmp_path: Path) -> None:
    other = make_run_folder(tmp_path / "other", workload="tests")
    export_basis(go_on(tmp_path / "run"), other.basis)
    assert same(other.read_basis(), basis_after(3))


def test_the_basis_of_a_run_without_a_store_can_be_exported(tmp_path: Path) -> None:
    run = in_process(tmp_path / "run")
    for asked, number in ((None, 5), (5, 5), (0, 0)):
        export_basis(run, tmp_path / "b.npz", round_number=asked, force=True)
        assert exported(tmp_path / "b.npz")[1] == number
    with pytest.raises(RunFileError, match="has not kept the basis after 3 rounds; it keeps those of 0, 5"):
        export_basis(run, tmp_path / "c.npz", round_number=3)


def test_nothing_is_written_over_unless_that_is_said(tmp_path: Path) -> None:
    run, output = go_on(tmp_path / "run"), tmp_path / "b.npz"
    output.write_bytes(b"mine")
    with pytest.raises(RunFileError, match=r"b.npz exists; name another file, or say --force to write over it"):
        export_basis(run, output)
    assert output.read_bytes() == b"mine"
    export_basis(run, output, force=True)
    assert exported(output)[1] == 3
    with pytest.raises(RunFileError, match="is a folder; name a file in it"):
        export_basis(run, tmp_path, force=True)
    with pytest.raises(RunFileError, match="is the stored run itself"):
        export_basis(run, run / NAME, force=True)
    with pytest.raises(RunFileError, match=r"cannot write .*nowhere/b.npz: No such file or directory"):
        export_basis(run, tmp_path / "nowhere" / "b.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.npz", "run"]


def test_what_is_no_run_cannot_be_exported(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for run, says in (
        (tmp_path / "empty", "empty holds no run; name the folder of one, see `cospan runs`"),
        (tmp_path / "file", "file is a file; name"),
        (tmp_path / "nothing", "there is no folder"),
    ):
        with pytest.raises(RunFileError, match=says):
            export_basis(run, tmp_path / "b.npz")
    for name in "abcde":
        go_on(tmp_path / name)
    with pytest.raises(RunFileError, match="is a folder of runs; name one of them: c, d, e and 2 more"):
        export_basis(tmp_path, tmp_path / "b.npz")
    (tmp_path / "a" / NAME).write_bytes(b"garbage" * 1000)
    with pytest.raises(RunFileError, match="cannot be read as a stored run"):
        export_basis(tmp_path / "a", tmp_path / "b.npz")
    assert not (tmp_path / "b.npz").exists()
