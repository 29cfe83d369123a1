"""`cospan score --log`: every row of a log has its value, and rows that the mapping leaves out have none."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from cospan.cli.tools.score import ScoreOptions, score_file
from cospan.client.logs.tables import csv_file
from cospan.client.value_function import ValueFunction
from cospan.simulation import Fleet
from cospan.wire.errors import CospanError

MAPPING = """
[log]
time = "at"
step = 1
reward = "-cost"
[features.level]
kind = "numeric"
range = [0, 9]
knots = 4
[features.mode]
kind = "categorical"
values = ["heat", "off"]
"""


@pytest.fixture
def learnt(tmp_path: Path) -> ValueFunction:
    """Of the log of a site in two files, in which some rows cannot be used; saved as value.npz."""
    (tmp_path / "fleet.toml").write_text(MAPPING, encoding="utf-8")
    folder = tmp_path / "logs/site"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, begin in enumerate((0, 60)):
        lines = ["note,at,level,mode,cost"]
        for at in range(begin, begin + 60):
            level = "n/a" if at in (3, 70) else f"{rng.integers(0, 10)}"
            lines.append(f'"row {at}, here",{at},{level},{"heat" if at % 3 else "off"},{rng.random():.3f}')
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    value = (
        Fleet.from_logs(tmp_path / "logs", tmp_path / "fleet.toml", rank=2, seed=1).run(progress=False).agents[0]
    )
    value.save(tmp_path / "value.npz")
    return value


def options(folder: Path, output: str = "values.csv") -> ScoreOptions:
    return ScoreOptions(
        folder / "value.npz",
        output=folder / output,
        log=str(folder / "logs/site"),
        mapping=folder / "fleet.toml",
    )


def test_all_rows_are_kept_and_those_that_are_known_have_values(
    learnt: ValueFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(csv_file, "BATCH_ROWS", 1)  # so that rows 3 and 70 are batches of their own
    score_file(options(tmp_path))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "values.csv").read_text(encoding="utf-8"))))
    assert [row["note"] for row in rows] == [f"row {at}, here" for at in range(120)]
    assert [at for at, row in enumerate(rows) if not row["value"]] == [3, 70]
    known = [row for row in rows if row["value"]]
    observations = np.array([[float(row["level"]), float(row["mode"] == "off")] for row in known])
    np.testing.assert_array_equal([float(row["value"]) for row in known], learnt.values(observations))
    assert all(float(row["value_low"]) < float(row["value"]) < float(row["value_high"]) for row in known)
    assert {float(row["gain"]) for row in rows} == {learnt.gain}
    assert "2 rows have a value that is not known, and no value" in capsys.readouterr().err


def test_parquet_says_the_same_with_numbers_as_numbers(learnt: ValueFunction, tmp_path: Path) -> None:
    import pandas

    score_file(options(tmp_path))
    score_file(options(tmp_path, "values.parquet"))
    found = pandas.read_parquet(tmp_path / "values.parquet")
    expected = pandas.read_csv(tmp_path / "values.csv")
    assert found.gain[0] == learnt.gain
    np.testing.assert_array_equal(found.value, expected.value)
    assert found["at"].tolist() == list(range(120))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"log": None}, "no rows are named"),
        ({"mapping": None}, "needs --mapping"),
        ({"columns": ("level",)}, "leave out --columns and --workload"),
        ({"observations": Path("rows.csv")}, "--log reads a log in place of --observations rows.csv"),
        ({"log": "nowhere.csv"}, "there is no file or folder nowhere.csv"),
    ],
)
def test_options_that_do_not_go_together(
    learnt: ValueFunction, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    given = {name: getattr(options(tmp_path), name) for name in ("value", "output", "log", "mapping")}
    with pytest.raises(CospanError, match=words):
        score_file(ScoreOptions(**(given | changes)))
    assert not (tmp_path / "values.csv").exists()


def test_a_mapping_of_another_fleet_is_refused(learnt: ValueFunction, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(MAPPING.replace("knots = 4", "knots = 6"), encoding="utf-8")
    with pytest.raises(CospanError, match="feature"):
        score_file(options(tmp_path))
