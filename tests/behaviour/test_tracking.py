"""`cospan run --track` and `cospan export --to`: TensorBoard reads what `rounds.csv` says, also after a kill."""

import csv
import random
import re
from pathlib import Path

import pytest
from behaviour.command import ended, in_this_process, started
from behaviour.test_resumed_runs import kill_all, wait_for_round
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cospan.cli.tracking.points import SERIES

ROUNDS = 200
SIZE = ("--agents", "2", "--rounds", str(ROUNDS), "--seed", "3")


def tracked(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of every series in a folder of event files."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def agrees(run: Path, events: Path) -> bool:
    """Whether each known number of `rounds.csv` is in the event files, once."""
    rows = list(csv.DictReader((run / "rounds.csv").read_text(encoding="utf-8").splitlines()))
    found = tracked(events)
    for column, series in SERIES.items():
        expected = [(int(row["round"]), float(row[column])) for row in rows if row[column]]
        steps = [step for step, _ in found.get(series, [])]
        assert steps == [step for step, _ in expected], series
        values = [value for _, value in found.get(series, [])]
        assert values == pytest.approx([value for _, value in expected], rel=1e-6), "they are float32 there"
    assert len(found["agents/gain_estimate"]) == len(rows)
    assert len(found["result/value_error"]) == 1
    return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the children of a process in /proc")
def test_a_run_that_was_killed_has_each_round_once(tmp_path: Path, no_matplotlib: str) -> None:
    run, environment = tmp_path / "run", {"PYTHONPATH": no_matplotlib}
    command = ("run", "queues", *SIZE, "--output", "run", "--quiet", "--track", "tensorboard")
    with started(*command, cwd=tmp_path, **environment) as process:
        wait_for_round(run, 90, process)
        kill_all(process, random.Random(5))
    with started("run", "--resume", "run", "--quiet", cwd=tmp_path, **environment) as process:
        code, _, err = ended(process)
    assert code == 0, err
    assert agrees(run, run / "tensorboard"), "it is tracked on without being told"


def test_a_run_is_exported_afterwards_and_twice_is_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    few = ("--agents", "3", "--rounds", "40")
    assert in_this_process("run", "queues", *few, "--in-process", "--quiet", "--output", "run") == 0
    capsys.readouterr()
    for _ in range(2):
        assert in_this_process("export", "run", "--to", "tensorboard") == 0
        assert capsys.readouterr().err == "wrote 40 rounds of run to run/tensorboard\n"
        assert agrees(tmp_path / "run", tmp_path / "run" / "tensorboard")
    assert in_this_process("export", "run", "--to", "tensorboard", "--output", "events") == 0
    assert agrees(tmp_path / "run", tmp_path / "events")
    (tmp_path / "file").touch()
    assert in_this_process("export", "run", "--to", "tensorboard", "--output", "file") == 1
    assert "--output file is a file; name a folder for the event files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "queues", "--track", "wandb"), "there is no tracker 'wandb'; take one of tensorboard, mlflow"),
        (("export", "x", "--to", "tensorboard", "--round", "3"), "leave out --round and --force"),
        (("export", "x", "--to", "wandb"), "there is no folder"),
        (("export", "x"), "there is no file to write; name one with --output, or a tracker with --to"),
        (("export", "x", "--to", "tensorboard"), "there is no folder"),
    ],
)
def test_wrong_use_is_a_sentence_and_makes_nothing(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_this_process(*arguments) in (1, 2)
    assert re.search(words, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())
