"""What `cospan run --resume` goes by: the folder's lock, how the run was begun, and what contradicts it."""

import io
import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import announced, specification
from stored import round_of, served, stored_run

from cospan.cli.commands import run
from cospan.cli.commands.runs import describe
from cospan.cli.engines.choice import HERE, Engine
from cospan.cli.run_folder import layout, resume
from cospan.cli.run_folder.layout import RunFolder, check_free, make_run_folder, point_to_newest_of, user_of
from cospan.cli.run_folder.progress_log import RoundRow, RunMonitor
from cospan.cli.run_folder.resume import (
    ErrorsFile,
    Launch,
    claimed,
    is_complete,
    is_resumable,
    mend_last_line,
    prepared,
    recollect,
)
from cospan.cli.run_folder.stored_run import run_that_is_over
from cospan.cli.settings.layers import Settings
from cospan.cli.settings.run_specification import RunPlan
from cospan.client.environment.workload_loader import load_workload
from cospan.client.learning.default_run import new_specification
from cospan.client.learning.run_config import with_features
from cospan.core.specification import RunSpecification
from cospan.server.storage import lock
from cospan.server.storage.writer import RunStore, create_store, open_store
from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.messages import FinishCause


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(layout, "_CLAIM_SECONDS", 0.05)
    monkeypatch.setattr(resume, "_CLAIM_SECONDS", 0.05)


def queues(**changes: Any) -> RunSpecification:
    """A specification of a workload that is there."""
    workload = load_workload("queues")
    start = new_specification("queues", workload.rank, workload.max_agents, workload.steps_per_round, 9)
    return with_features(replace(start, agents=2, **changes), workload)[0]


def begun(path: Path, *, rounds: int = 3, in_process: bool = False, **settings: Any) -> RunFolder:
    """A run of `cospan run` that was killed after that many rounds."""
    folder = make_run_folder(path, workload="queues")
    spec = queues()
    folder.write_spec(spec)
    Launch.of(Settings(**settings), in_process=in_process).write(folder)
    if not in_process:
        store = create_store(folder.store, spec, run_id="0123456789abcdef")
        store.begin()
        basis, covariance = announced(spec)
        for number in range(rounds):
            store.write([round_of(number, basis=basis, head_covariance=covariance)])
        store.close()
    folder.release()
    return folder


# Whose a folder is ----------------------------------------------------------------------------------------------


def test_a_folder_belongs_to_one_run_at_a_time(tmp_path: Path) -> None:
    first = make_run_folder(tmp_path / "run", workload="toy")
    assert (user_of(first.path) or "").startswith(f"{os.getpid()}, started at 20")
    for second in (check_free, lambda path: make_run_folder(path, workload="toy"), claimed):
        if second is claimed:
            Launch.of(Settings(), in_process=False).write(first)
        with pytest.raises(RunFileError, match=rf"in use by another run \(process {os.getpid()}, started at 20"):
            second(tmp_path / "run")
    first.release()
    assert user_of(first.path) is None
    claimed(first.path).release()


def test_children_hold_the_folder_until_they_end(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", workload="toy")
    assert folder.claim is not None
    inherited = os.dup(folder.claim.descriptor)
    folder.claim.close()
    assert user_of(folder.path) is not None
    os.close(inherited)
    assert user_of(folder.path) is None


def test_nothing_of_others_is_removed(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", workload="toy")
    folder.write_spec(specification())
    folder.agents.mkdir()
    for own in ("agents/site-0.npz", "agents/.site-0.npz.abc.tmp", "agents/group-0..9.npz", "launch.json"):
        (folder.path / own).write_text("")
    others = ["agents/mine.npz", "notes.txt", "results/site-0.npz"]
    (folder.path / "results").mkdir()
    for other in others:
        (folder.path / other).write_text("mine")
    folder.discard()
    assert sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()) == others


def test_the_newest_folder_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    elsewhere = make_run_folder(tmp_path / "elsewhere", workload="toy")
    point_to_newest_of(elsewhere)
    assert list(Path().iterdir()) == [], "nothing is made for a folder elsewhere"
    first, second = (make_run_folder(path, workload="toy") for path in (None, Path("named")))
    newest = layout.RUNS / "latest"
    for folder in (first, second, elsewhere):
        point_to_newest_of(folder)
        assert newest.resolve() == folder.path.resolve()
    point_to_newest_of(second)
    second.discard()
    assert newest.resolve() == first.path.resolve(), "a run that did not begin is not the newest"
    newest.unlink()
    newest.mkdir()
    point_to_newest_of(first)
    assert newest.is_dir(), "what is no link is not ours"


# What can be resumed --------------------------------------------------------------------------------------------


def test_a_run_is_resumed_as_it_was_begun(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", processes=2, checkpoint_interval=7)
    resumption = prepared(folder, {}, None, None)
    settings = resumption.plan.settings
    assert (settings.processes, settings.baseline, settings.checkpoint_interval) == (2, None, 7)
    assert resumption.plan.specification == queues()
    assert resumption.stored is not None
    assert resumption.stored.state.rounds == 3
    same = {"rounds": "9", "processes": "2", "agents": "2", "port": "0"}
    assert prepared(folder, same, None, "queues").plan.specification == queues()


def test_the_environment_does_not_change_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begun(tmp_path / "run")
    monkeypatch.setenv("COSPAN_ROUNDS", "77")
    monkeypatch.setenv("COSPAN_RANK", "1")
    assert prepared(folder, {}, None, None).plan.specification == queues()


@pytest.mark.parametrize(
    ("flags", "reference", "says"),
    [
        ({"rounds": "12"}, None, r"has rounds = 9, and 12 is asked for; leave out what differs"),
        ({"seed": "5", "rank": "1"}, None, r"has rank = \d, and 1 is asked for; seed = 0, and 5 is asked for"),
        ({"preset": "paper"}, None, r"has .* is asked for"),
        ({"processes": "1"}, None, "has processes = nothing, and 1 is asked for"),
        ({"baseline": False}, None, "has baseline = nothing, and false is asked for"),
        ({}, "synthetic", "has workload = 'queues', and 'synthetic' is asked for"),
    ],
)
def test_what_contradicts_the_run_is_refused_with_both_values(
    tmp_path: Path, flags: dict[str, Any], reference: str | None, says: str
) -> None:
    with pytest.raises(InvalidValueError, match=says):
        prepared(begun(tmp_path / "run"), flags, None, reference)


def test_what_cannot_be_resumed_says_why(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="there is no run folder"):
        claimed(tmp_path / "nothing")
    with pytest.raises(RunFileError, match="no stored rounds, so there is no run to resume"):
        claimed(tmp_path)
    stored_run(tmp_path, 3)
    with pytest.raises(RunFileError, match="resumed with: cospan coordinator --run-folder"):
        claimed(tmp_path)
    with pytest.raises(InvalidValueError, match="made in one process"):
        prepared(begun(tmp_path / "in-process", in_process=True), {}, None, None)
    damaged = begun(tmp_path / "damaged")
    damaged.launch.write_text("{")
    with pytest.raises(RunFileError, match=r"launch\.json cannot be read"):
        prepared(damaged, {}, None, None)
    damaged.launch.write_text(json.dumps({"format": "cospan-launch-1", "keep_every": 100}))
    with pytest.raises(RunFileError, match=r"its format is 'cospan-launch-1', and this version knows"):
        prepared(damaged, {}, None, None)


def test_a_run_is_complete_when_its_results_are_written(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    assert is_resumable(folder)
    assert describe(folder.path).resume == f"cospan run --resume {folder.path}"
    with served_again(folder) as store:
        store.write_end(FinishCause.ROUNDS_REACHED, "all 3 rounds are done", 3)
    assert is_complete(folder) == "", "its agents may have been killed before they had written their files"
    assert describe(folder.path).state == "resumable"
    folder.write_result({"per_agent": [], "finish_cause": "rounds-reached"})
    assert is_complete(folder) == ""
    folder.write_result({"per_agent": [{"id": "site-0"}], "finish_cause": "rounds-reached"})
    assert "is over after 3 rounds: all 3 rounds are done" in is_complete(folder)
    found = describe(folder.path)
    assert (found.state, found.resume, is_resumable(folder)) == ("finished", None, False)


def test_a_run_that_is_over_gives_its_result_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that reads standard output need not know that there was nothing left to do."""
    folder, data = begun(tmp_path / "run"), io.StringIO()
    with served_again(folder) as store:
        store.write_end(FinishCause.ROUNDS_REACHED, "all 3 rounds are done", 3)
    document = {"per_agent": [{"id": "site-0"}], "finish_cause": "rounds-reached"}
    folder.write_result(document)
    monkeypatch.setattr(run, "claim_stdout", lambda: data)
    options = run.RunOptions(workload=None, spec=None, output=None, resume=folder.path, json=True)
    assert run.run_here(options, {}, None) == 0
    assert json.loads(data.getvalue()) == document
    assert user_of(folder.path) is None


def test_what_contradicts_the_run_leaves_no_site_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, closed = begun(tmp_path / "run"), list[str]()
    monkeypatch.setattr(RunPlan, "close", lambda plan: closed.append(plan.specification.workload))
    with pytest.raises(InvalidValueError, match="has rounds = 9, and 12 is asked for"):
        prepared(folder, {"rounds": "12"}, None, None)
    assert closed == ["queues"]


def test_a_run_that_an_administrator_stopped_is_over(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    with served_again(folder) as store:
        store.write_end(FinishCause.STOPPED, "it was stopped by an administrator", 3)
    assert "it was stopped by an administrator" in is_complete(folder)


def served_again(folder: RunFolder) -> "closing[RunStore]":
    return closing(open_store(folder.store))


def test_a_folder_with_a_run_that_is_over_is_known(tmp_path: Path) -> None:
    with served(tmp_path / "coordinator.sqlite") as store:
        assert run_that_is_over(tmp_path, None) is None
        store.write([round_of(0)])
        store.write_end(FinishCause.ROUNDS_REACHED, "all is done", 1)
    found = run_that_is_over(tmp_path, None)
    assert found is not None
    assert found.state.rounds == 1
    (tmp_path / "runs").mkdir()
    assert run_that_is_over(None, tmp_path / "runs") is None
    (tmp_path / "runs" / "latest").symlink_to(tmp_path)
    assert run_that_is_over(None, tmp_path / "runs") is not None


def test_a_round_that_closes_again_is_not_known_before(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", rounds=3)

    def known() -> list[int]:
        monitor = RunMonitor(agents=2, total=3, true_basis=None)
        recollect(monitor, folder, ErrorsFile(folder))
        return [row.round for row in monitor.rows]

    assert known() == [0, 1, 2]
    with served_again(folder) as store:
        store.write_end(FinishCause.ROUNDS_REACHED, "all 3 rounds are done", 3)
    assert known() == [0, 1]


# What a killed process leaves half-written ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept"),
    [("", ""), ("a\n", "a\n"), ("a\nb", "a\n"), ("half", ""), ("a\n" + "x" * 200_000, "a\n")],
)
def test_a_last_line_that_is_not_whole_is_cut_off(tmp_path: Path, text: str, kept: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    mend_last_line(path)
    assert path.read_text() == kept
    mend_last_line(tmp_path / "nothing")


def test_only_whole_lines_are_believed(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", workload="toy")
    errors = ErrorsFile(folder)
    rows = [RoundRow(number, 0.1, 2, 0.5, 0.0, None if number == 1 else 0.5 + number) for number in range(4)]
    errors.add(rows[:2])
    errors.add(rows)
    with folder.subspace_errors.open("a") as file:
        file.write("nonsense\n\x00\x00,\n4,0.12")
    assert ErrorsFile(folder).found() == {0: 0.5, 2: 2.5, 3: 3.5}
    errors.begin_with(rows[:1])
    assert ErrorsFile(folder).found() == {0: 0.5}


def test_a_launch_keeps_its_engine(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for engine in (HERE, Engine("ray", "n1:6379")):
        Launch.of(Settings(), in_process=False, engine=engine).write(folder)
        assert resume._read_launch(folder).engine == engine
    folder.launch.write_text(folder.launch.read_text().replace('"ray"', '"boat"'))
    with pytest.raises(RunFileError, match="its engine is 'boat'"):
        resume._read_launch(folder)
