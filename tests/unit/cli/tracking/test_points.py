"""What is tracked of a run, under which names and at which times."""

import math
from dataclasses import fields

from cospan.cli.run_folder.progress_log import COLUMNS, RoundRow
from cospan.cli.tracking.points import ALWAYS, SERIES, RunFacts, point_of_result, points_of_rows


def row(number: int, seconds: float = 2.0, **more: float) -> RoundRow:
    return RoundRow(number, seconds, 3, 0.5, 1e-16, **more)


def test_every_column_of_the_rounds_has_a_series() -> None:
    assert set(SERIES) == set(COLUMNS) - {"round"}
    assert len(set(SERIES.values())) == len(SERIES)
    assert {field.name for field in fields(RoundRow)} == set(COLUMNS)


def test_rounds_are_points_with_what_is_known_of_them() -> None:
    first, second = points_of_rows([row(4, 1.0), row(5, 3.0, value_error=0.25, td_alone_error=math.nan)], 100.0)
    assert (first.step, first.time) == (4, 97.0), "it closed when the other was opened"
    assert (second.step, second.time) == (5, 100.0)
    assert first.values == {
        "round/seconds": 1.0,
        "round/contributors": 3.0,
        "round/basis_movement": 0.5,
        "round/orthonormality_error": 1e-16,
    }
    assert second.values == {**first.values, "round/seconds": 3.0, "error/value": 0.25}
    assert ALWAYS in first.values
    assert points_of_rows([], 1.0) == []


def test_the_result_is_one_point_at_the_last_round() -> None:
    document = {"rounds": 9, "value_error": 0.5, "ratio": None, "baselines": {"lstd_alone": 1.0}, "message": "over"}
    point = point_of_result(document, 7.0)
    assert (point.step, point.time) == (8, 7.0)
    assert point.values == {"result/value_error": 0.5, "result/lstd_alone": 1.0}


def test_constants_are_flat() -> None:
    specification = {"workload": "tanks", "agents": 3, "method": {"rank": 2, "update": None}}
    facts = RunFacts.of("run", specification)
    assert facts.workload == "tanks"
    assert facts.constants == {"workload": "tanks", "agents": 3, "method.rank": 2, "method.update": "None"}
