"""`cospan score`: a file's rows have the values of the value function, and what is wrong is named by row."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cospan.cli.tools import observations
from cospan.cli.tools.score import ScoreOptions, score_file
from cospan.client.value_function import ValueFunction
from cospan.simulation import Fleet
from cospan.wire.errors import CospanError

STATES = 44


@pytest.fixture(scope="module")
def queue() -> ValueFunction:
    return Fleet("queues", agents=3, rounds=20, seed=1).run(progress=False).agents[1]


@pytest.fixture
def saved(queue: ValueFunction, tmp_path: Path) -> Path:
    queue.save(tmp_path / "site-1.npz")
    return tmp_path / "site-1.npz"


def table(folder: Path, text: str, name: str = "rows.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def rows_of(path: Path) -> list[Mapping[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_each_row_has_its_value(queue: ValueFunction, saved: Path, tmp_path: Path, capsys: Any) -> None:
    data = table(tmp_path, '\ufeffwhen,queue\n"Mon, 1",0\nTue, 5 \nWed,\nThu,43\n')
    score_file(ScoreOptions(saved, data, ("queue",), output=tmp_path / "values.csv"))
    found = rows_of(tmp_path / "values.csv")
    assert [row["when"] for row in found] == ["Mon, 1", "Tue", "Wed", "Thu"]
    assert [float(row["value"] or "nan") for row in found] == pytest.approx(
        [queue.value(0), queue.value(5), math.nan, queue.value(43)], nan_ok=True, abs=0.0
    )
    assert {float(row["gain"]) for row in found} == {queue.gain}
    said = capsys.readouterr().err
    assert "scored 3 of 4 rows" in said
    assert "1 row has a missing cell, and no value" in said


def test_blocks_and_arrays_give_the_same(
    queue: ValueFunction, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observations, "BLOCK_ROWS", 7)
    states = np.random.default_rng(1).integers(0, STATES, 40)
    data = table(tmp_path, "queue\n" + "".join(f"{state}\n" for state in states))
    np.save(tmp_path / "rows.npy", states)
    for path in (data, tmp_path / "rows.npy"):
        output = tmp_path / f"{path.suffix[1:]}-values.csv"
        score_file(ScoreOptions(saved, path, output=output))
        found = [float(row["value"]) for row in rows_of(output)]
        np.testing.assert_array_equal(found, queue.values(states.tolist()))


def test_intervals_are_about_the_value(queue: ValueFunction, saved: Path, tmp_path: Path) -> None:
    """As wide as those of the value less the mean over the visited states."""
    data = table(tmp_path, "queue\n3\n\n7\n")
    score_file(ScoreOptions(saved, data, output=tmp_path / "values.csv", coverage=0.5))
    for row, state in zip(rows_of(tmp_path / "values.csv"), (3, 7), strict=True):
        lower, upper = queue.interval(state, coverage=0.5)
        low, high = float(row["value_low"]), float(row["value_high"])
        assert high - low == pytest.approx(upper - lower, rel=1e-5)  # the file has them in float32
        assert (low + high) / 2.0 == pytest.approx(queue.value(state))


def test_an_interval_that_is_not_known_is_empty_and_said_once(tmp_path: Path, capsys: Any) -> None:
    fleet = Fleet("queues", agents=3, rounds=2, preset="full-history").run(progress=False)
    fleet.agents[1].save(tmp_path / "site-1.npz")
    options = ScoreOptions(
        tmp_path / "site-1.npz", table(tmp_path, "queue\n3\n7\n"), output=tmp_path / "values.csv"
    )
    score_file(options)
    for row in rows_of(tmp_path / "values.csv"):
        assert (row["value_low"], row["value_high"]) == ("", "")
        assert row["value"]
    assert capsys.readouterr().err.count("intervals are empty: site-1 has no intervals of values: only preset") == 1


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        ("queue\n1\nx\n", (), "row 2 of .*rows.csv has 'x' in column 'queue', which is no number"),
        ("a,queue\n1,2\n3\n", ("queue",), "row 2 of .*rows.csv has 1 cells, and the header 2"),
        ("queue\n2.5\n", (), "has the observation 2.5; those of 'queues' are whole numbers"),
        ("queue\n99\n", (), "observation 99 is not a state"),
        (
            "a,b\n1,2\n",
            (),
            "an observation of 'queues' is one whole number, and .* a, b; choose",
        ),
        ("a,b\n1,2\n", ("c",), "has no column c; it has a, b"),
        ("value,b\n1,2\n", ("b",), "has a column 'value' already"),
        ("", (), "is empty; give a header"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    text: str, columns: tuple[str, ...], words: str, saved: Path, tmp_path: Path
) -> None:
    data, output = table(tmp_path, text), tmp_path / "values.csv"
    with pytest.raises(CospanError, match=words):
        score_file(ScoreOptions(saved, data, columns, output=output))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "site-1.npz"]


def test_files_that_cannot_be_taken(saved: Path, tmp_path: Path) -> None:
    data = table(tmp_path, "queue\n1\n")
    output = table(tmp_path, "mine", "mine.csv")
    text = table(tmp_path, "queue\n1\n", "rows.txt")
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    (tmp_path / "odd.npy").write_bytes(b"no array")
    (tmp_path / "odd.csv").write_bytes(b"queue\n\xff\n")
    for options, words in (
        (ScoreOptions(saved, data, output=output), "mine.csv exists; name another file, or give --force"),
        (ScoreOptions(saved, data, output=data, force=True), "is the file that is read; name another"),
        (ScoreOptions(saved, data, output=tmp_path / "x.xls"), r"its name must end in .csv or .parquet"),
        (ScoreOptions(saved, data, coverage=1.5), "--coverage is 1.5; it must lie between 0 and 1"),
        (ScoreOptions(saved, text), "it must be a .csv file with a header, or a .npy array"),
        (ScoreOptions(saved, tmp_path / "none.csv"), "cannot read .*none.csv: No such file"),
        (ScoreOptions(saved, tmp_path / "cube.npy"), r"holds an array of shape \(2, 2, 2\)"),
        (ScoreOptions(saved, tmp_path / "odd.npy"), "cannot read .*odd.npy as an array"),
        (ScoreOptions(saved, tmp_path / "odd.csv"), "is not text in UTF-8"),
        (ScoreOptions(data, data), "rows.csv"),
    ):
        with pytest.raises(CospanError, match=words):
            score_file(options)
    assert output.read_text() == "mine"
    assert score_file(ScoreOptions(saved, data, output=output, force=True)) == 0
    assert len(rows_of(output)) == 1


def test_without_rows_there_is_a_header(saved: Path, tmp_path: Path) -> None:
    score_file(ScoreOptions(saved, table(tmp_path, "queue\n"), output=tmp_path / "values.csv"))
    assert (tmp_path / "values.csv").read_text() == "queue,value,value_low,value_high,gain\n"


def test_parquet_holds_numbers_and_text(queue: ValueFunction, saved: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install '.[logs]'")
    data = table(tmp_path, "when,queue\nMon,0\nTue,\n")
    score_file(ScoreOptions(saved, data, ("queue",), output=tmp_path / "values.parquet"))
    found = parquet.read_table(tmp_path / "values.parquet").to_pydict()
    assert found["when"] == ["Mon", "Tue"]
    assert found["queue"] == [0.0, None]
    assert found["value"] == [queue.value(0), None]
    score_file(ScoreOptions(saved, table(tmp_path, "queue\n"), output=tmp_path / "empty.parquet"))
    assert parquet.read_table(tmp_path / "empty.parquet").num_rows == 0
