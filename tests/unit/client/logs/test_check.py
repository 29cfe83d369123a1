"""The check before learning: each thing that goes wrong with logs, with file, row and remedy."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cospan.client.logs.check import Severity, check_log, check_logs, duration, problems_in, refuse_problems
from cospan.client.logs.mapping import LogMapping, mapping_of
from cospan.client.logs.tables.batch import TableError
from cospan.client.logs.tables.csv_file import CsvFile

ROWS = 200


def mapping(**log: Any) -> LogMapping:
    return mapping_of(
        {
            "log": {"time": "at", "reward": "-cost", **log},
            "features": {"x": {"kind": "numeric", "range": [0, 9], "knots": 3}},
        }
    )


def stamp(minutes: int) -> str:
    day, rest = divmod(minutes, 1440)
    return f"2023-05-{day + 1:02} {rest // 60:02}:{rest % 60:02}"


def hourly() -> list[list[str]]:
    return [[stamp(60 * hour), str(hour % 10), "1.5"] for hour in range(ROWS)]


def set_cell(row: int, place: int, text: str) -> Callable[[list[list[str]]], None]:
    def change(rows: list[list[str]]) -> None:
        rows[row - 1][place] = text

    return change


def written(folder: Path, rows: list[list[str]], name: str = "north", header: str = "at,x,cost") -> CsvFile:
    path = folder / f"{name}.csv"
    path.write_text("\n".join([header, *map(",".join, rows)]) + "\n", encoding="utf-8")
    return CsvFile(path)


def mixed(rows: list[list[str]]) -> None:
    for number in range(ROWS // 2, ROWS):
        rows[number][0] = stamp(60 * ROWS // 2 + 15 * (number - ROWS // 2))


def other_unit(rows: list[list[str]]) -> None:
    for row in rows:
        row[1] = str(1000 * float(row[1]))


@pytest.mark.parametrize(
    ("change", "severity", "words"),
    [
        (set_cell(7, 1, ""), "note", r"1 row has a missing value, the first in .*north.csv, row 7: x is ''"),
        (set_cell(7, 1, "NaN"), "note", "row 7: x is 'NaN'; they are left out"),
        (
            set_cell(7, 1, "off"),
            "note",
            r"text in place of a number.*row 7: x is 'off'; correct them, or list the text",
        ),
        (set_cell(9, 0, "noon"), "note", "1 row has no time, the first in .*row 9: at is 'noon'; .*time_format"),
        (set_cell(9, 2, ""), "note", "a missing reward, once, first at .*row 10; no step is learnt"),
        (set_cell(9, 0, stamp(60 * 7)), "note", "the time of the row before.*row 9.*keep one of them.*UTC"),
        (set_cell(9, 0, stamp(60 * 7 - 15)), "note", "time that goes back, once, first at .*row 9.*UTC"),
        (lambda rows: rows.pop(50), "note", "missing rows, once, first at .*row 51: at is '2023-05-03T03:00:00'"),
        (lambda rows: rows.reverse(), "problem", "time that goes back, 199 times.*; sort the rows by time"),
        (mixed, "problem", "intervals that are no multiple of the step.*the step is 1 h; resample the log"),
        (other_unit, "problem", r"outside the range of its features in .* \(it is 0 to 9000\).*another unit"),
        (lambda rows: [row.__setitem__(1, "4") for row in rows], "note", "x never changes in north"),
        (lambda rows: [row.__setitem__(1, "on") for row in rows], "problem", "200 rows have text in place"),
        (lambda rows: [row.__setitem__(2, "") for row in rows], "problem", "no two of them follow one another"),
        (lambda rows: rows.clear(), "problem", "north has no rows; write its rows"),
        (lambda rows: rows[4].pop(), "problem", "has 2 cells in row 5, and its header 3; correct the row"),
    ],
)
def test_what_is_found_is_said_with_row_and_remedy(
    tmp_path: Path, change: Callable[[list[list[str]]], Any], severity: str, words: str
) -> None:
    rows = hourly()
    change(rows)
    report = check_log(mapping(), written(tmp_path, rows))
    matching = [each for each in report.findings if re.search(words, str(each))]
    assert matching, [str(each) for each in report.findings]
    assert matching[0].severity is Severity(severity)
    assert report.is_sound == (severity == "note")


def test_a_sound_log_has_no_finding(tmp_path: Path) -> None:
    report = check_log(mapping(), written(tmp_path, hourly()))
    assert report.findings == []
    assert report.line == "north: 199 transitions in 200 rows"
    assert (report.transitions, report.slots) == (199, 199)


def test_the_file_of_another_mapping_is_refused(tmp_path: Path) -> None:
    report = check_log(mapping(), written(tmp_path, hourly(), header="at,x,price"))
    assert "has no column 'cost'" in str(report.findings[0])
    assert "correct the mapping" in report.findings[0].remedy


def test_sites_with_another_step_are_found(tmp_path: Path) -> None:
    tables = [written(tmp_path, hourly(), name) for name in ("a", "b", "c")]
    rows = [[stamp(15 * number), *row[1:]] for number, row in enumerate(hourly())]
    tables.append(written(tmp_path, rows, "d"))
    reports = check_logs(mapping(), tables)
    assert problems_in(reports) == [
        "d has a step of 15 min, and most sites 1 h; take the same step for all, or set log.step in the mapping"
    ]
    with pytest.raises(TableError, match="d has a step of 15 min"):
        refuse_problems(reports)


def test_many_problems_are_counted(tmp_path: Path) -> None:
    tables = [written(tmp_path, [], name) for name in "abcde"]
    with pytest.raises(TableError, match=r"a has no rows.*and 2 more problems; `cospan doctor --logs` lists all"):
        refuse_problems(check_logs(mapping(), tables))


def test_durations() -> None:
    assert [duration(step) for step in (5e8, 9e11, 3.6e12, 1.728e14, 1.0)] == [
        "500 ms",
        "15 min",
        "1 h",
        "2 d",
        "1",
    ]
