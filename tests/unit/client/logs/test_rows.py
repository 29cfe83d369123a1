"""Rows of tables: what is left out, where chains are cut, and that nothing is made up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cospan.client.logs.mapping import LogMapping, mapping_of
from cospan.client.logs.rows import (
    CATEGORY,
    CHAIN,
    DUPLICATE,
    FALLING,
    FILE,
    GAP,
    MISSING,
    OFF_STEP,
    REWARD,
    TEXT,
    TIME,
    RowReader,
    Rows,
)
from cospan.client.logs.tables.csv_file import CsvFile
from cospan.client.logs.tables.sites import Folder

X = {"kind": "numeric", "range": [0, 100], "knots": 3}


def mapping(log: dict[str, Any] | None = None, **features: Any) -> LogMapping:
    return mapping_of(
        {"log": {"time": "at", "step": "1h", "reward": "r", **(log or {})}, "features": features or {"x": X}}
    )


def read(path: Path, given: LogMapping) -> tuple[Rows, RowReader]:
    reader = RowReader(given, Folder(path) if path.is_dir() else CsvFile(path))
    parts = list(reader)
    return (
        Rows(
            np.concatenate([each.observations for each in parts]),
            np.concatenate([each.follows for each in parts]),
            np.concatenate([each.arrivals for each in parts]),
            np.concatenate([each.numbers for each in parts]),
            parts[-1].file,
        ),
        reader,
    )


def csv_file(folder: Path, *rows: str, header: str = "at,x,r") -> Path:
    path = folder / "log.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def hours(*numbers: int) -> list[str]:
    return [f"2023-01-01 {number:02}:00:00,{number},{number / 10}" for number in numbers]


def test_consecutive_rows_are_one_chain_with_the_reward_of_the_row_before(tmp_path: Path) -> None:
    rows, reader = read(csv_file(tmp_path, *hours(0, 1, 2, 3)), mapping())
    assert rows.observations[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert rows.follows.tolist() == [False, True, True, True]
    assert rows.arrivals.tolist() == [0.0, 0.0, 0.1, 0.2]
    assert not reader.counts.kinds


def test_the_reward_may_stand_in_the_next_row(tmp_path: Path) -> None:
    rows, _ = read(csv_file(tmp_path, *hours(0, 1, 2)), mapping({"reward_at": "next-row"}))
    assert rows.arrivals.tolist() == [0.0, 0.1, 0.2]


@pytest.mark.parametrize(
    ("rows", "known", "follows", "kind"),
    [
        (hours(0, 1, 3, 4), [0, 1, 3, 4], [0, 1, 0, 1], GAP),
        ([*hours(0, 1), "2023-01-01 02:00:00,,5", *hours(3, 4)], [0, 1, 3, 4], [0, 1, 0, 1], MISSING),
        ([*hours(0, 1), "2023-01-01 02:00:00,NaN,5", *hours(3, 4)], [0, 1, 3, 4], [0, 1, 0, 1], MISSING),
        ([*hours(0, 1), "2023-01-01 02:00:00,inf,5", *hours(3, 4)], [0, 1, 3, 4], [0, 1, 0, 1], MISSING),
        ([*hours(0, 1), "2023-01-01 02:00:00,off,5", *hours(3, 4)], [0, 1, 3, 4], [0, 1, 0, 1], TEXT),
        ([*hours(0, 1), "soon,2,5", *hours(3, 4)], [0, 1, 3, 4], [0, 1, 0, 1], TIME),
        (hours(0, 1, 2, 2, 3, 4), [0, 1, 2, 3, 4], [0, 1, 1, 0, 1], DUPLICATE),
        (hours(0, 1, 2, 1, 2), [0, 1, 2, 1, 2], [0, 1, 1, 0, 1], FALLING),
        ([*hours(0, 1), "2023-01-01 01:30:00,7,5", *hours(2, 3)], [0, 1, 7, 2, 3], [0, 1, 0, 0, 1], OFF_STEP),
        ([*hours(0), "2023-01-01 01:00:00,1,", *hours(2, 3)], [0, 1, 2, 3], [0, 1, 0, 1], REWARD),
    ],
)
def test_what_is_not_known_cuts_the_chain(
    tmp_path: Path, rows: list[str], known: list[float], follows: list[int], kind: str
) -> None:
    found, reader = read(csv_file(tmp_path, *rows), mapping())
    assert found.observations[:, 0].tolist() == known
    assert found.follows.astype(int).tolist() == follows
    assert reader.counts.kinds[kind] >= 1
    assert reader.counts.first[kind].file.endswith("log.csv")


def test_the_first_bad_row_is_named_with_its_value(tmp_path: Path) -> None:
    _, reader = read(csv_file(tmp_path, *hours(0, 1), "2023-01-01 02:00:00,off,5", *hours(3, 4)), mapping())
    place = reader.counts.first[TEXT]
    assert (place.row, place.column, place.value) == (3, "x", "off")


def test_small_deviations_from_the_step_do_not_matter(tmp_path: Path) -> None:
    rows = ["2023-01-01 00:00:00,0,1", "2023-01-01 01:00:04,1,1", "2023-01-01 01:59:58,2,1"]
    found, _ = read(csv_file(tmp_path, *rows), mapping())
    assert found.follows.tolist() == [False, True, True]


def test_the_step_is_that_of_the_first_rows_where_the_mapping_names_none(tmp_path: Path) -> None:
    rows = [f"2023-01-01 00:{minute:02}:00,1,1" for minute in (0, 5, 10, 20, 25)]
    given = mapping_of({"log": {"time": "at", "reward": "r"}, "features": {"x": X}})
    found, reader = read(csv_file(tmp_path, *rows), given)
    assert reader.counts.step == 300e9
    assert found.follows.tolist() == [False, True, True, False, True]


def test_stamps_may_have_zones_formats_or_be_numbers(tmp_path: Path) -> None:
    zones = ["2023-03-26T01:00:00+01:00,0,1", "2023-03-26T03:00:00+02:00,1,1", "2023-03-26T02:00:00Z,2,1"]
    assert read(csv_file(tmp_path, *zones), mapping())[0].follows.tolist() == [False, True, True]
    german = ["01.02.2023 00:00,0,1", "01.02.2023 01:00,1,1"]
    given = mapping({"time_format": "%d.%m.%Y %H:%M"})
    assert read(csv_file(tmp_path, *german), given)[0].follows.tolist() == [False, True]
    numbers = ["10,0,1", "11,1,1", "13,2,1"]
    assert read(csv_file(tmp_path, *numbers), mapping({"step": 1}))[0].follows.tolist() == [False, True, False]


def test_hours_that_clocks_repeat_or_skip_invent_nothing(tmp_path: Path) -> None:
    autumn = ["2023-10-29 01:00,1,1", "2023-10-29 02:00,2,1", "2023-10-29 02:00,3,1", "2023-10-29 03:00,4,1"]
    assert read(csv_file(tmp_path, *autumn), mapping())[0].follows.tolist() == [False, True, False]
    spring = ["2023-03-26 01:00,1,1", "2023-03-26 03:00,2,1", "2023-03-26 04:00,3,1"]
    assert read(csv_file(tmp_path, *spring), mapping())[0].follows.tolist() == [False, False, True]


def test_columns_of_the_clock(tmp_path: Path) -> None:
    clocks = {
        "hour": {"from": "time:hour-of-day", "kind": "cyclic", "knots": 4},
        "day": {"from": "time:day-of-week", "kind": "cyclic", "knots": 7},
        "year": {"from": "time:day-of-year", "kind": "cyclic", "knots": 4},
    }
    rows = ["2023-01-01 23:30:00,1,1", "2023-01-02 00:30:00,2,1"]  # a Sunday and a Monday
    found, _ = read(csv_file(tmp_path, *rows), mapping(None, **clocks))
    np.testing.assert_allclose(found.observations, [[23.5, 6 + 23.5 / 24, 0.0], [0.5, 0.5 / 24, 1.0]])


def test_categories_are_numbered_and_unknown_ones_left_out(tmp_path: Path) -> None:
    given = mapping(None, mode={"kind": "categorical", "values": ["heat", "off"]})
    path = csv_file(
        tmp_path, "2023-01-01 00:00,heat,1", "2023-01-01 01:00,off,1", "2023-01-01 02:00,cool,1", header="at,mode,r"
    )
    found, reader = read(path, given)
    assert found.observations[:, 0].tolist() == [0.0, 1.0]
    assert reader.counts.first[CATEGORY].value == "cool"


def test_another_chain_and_another_file_cut(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "2.csv").write_text("at,x,r,c\n2023-01-01 03:00,3,1,b\n2023-01-01 04:00,4,1,b\n", encoding="utf-8")
    (folder / "1.csv").write_text(
        "at,x,r,c\n2023-01-01 00:00,0,1,a\n2023-01-01 01:00,1,1,a\n2023-01-01 02:00,2,1,b\n", encoding="utf-8"
    )
    found, reader = read(folder, mapping({"chain": "c"}))
    assert found.observations[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert found.follows.tolist() == [False, True, False, False, True]
    assert (reader.counts.kinds[CHAIN], reader.counts.kinds[FILE]) == (1, 1)


def test_batches_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in np.flatnonzero(rng.random(300) > 0.2).tolist():
        stamp = f"2023-01-{1 + number // 24:02} {number % 24:02}:00"
        rows.append(f"{stamp},{'' if rng.random() < 0.1 else number % 90},{number}")
    path = csv_file(tmp_path, *rows)
    whole, first = read(path, mapping())
    for size in (1, 2, 7):
        monkeypatch.setattr("cospan.client.logs.tables.csv_file.BATCH_ROWS", size)
        parts, reader = read(path, mapping())
        for name in ("observations", "follows", "arrivals", "numbers"):
            np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
        assert reader.counts.kinds == first.counts.kinds
