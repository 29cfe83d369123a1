"""A mapping guessed from tables: which column is which, features for all sites, and what only the user knows."""

import tomllib
from typing import Any

import numpy as np
import pandas
import pytest

from cospan.client.logs.check import check_logs
from cospan.client.logs.guess import GivenNames, guessed_mapping
from cospan.client.logs.mapping import LogMapping, mapping_of
from cospan.client.logs.tables.batch import TableError
from cospan.client.logs.tables.frame import Frame
from cospan.wire.errors import InvalidValueError

ROWS = 24 * 40


def frame(low: float = 0.0, **more: Any) -> pandas.DataFrame:
    rng = np.random.default_rng(0)
    columns = {
        "stamp": pandas.date_range("2024-01-01", periods=ROWS, freq="h").strftime("%d.%m.%Y %H:%M"),
        "level": rng.uniform(low, low + 10.0, ROWS),
        "mode": np.array(["heat", "cool", "off"])[rng.integers(0, 3, ROWS)],
        "flat": 1.0,
        "note": [f"row {row}" for row in range(ROWS)],
        "cost (EUR)": rng.random(ROWS),
    }
    return pandas.DataFrame(columns | more)


def guessed(*frames: pandas.DataFrame, **given: Any) -> LogMapping:
    tables = [Frame(f"site-{number}", each) for number, each in enumerate(frames)]
    text = guessed_mapping(tables, GivenNames(**given), data="logs")
    plain = guessed_mapping(tables, GivenNames(**given), data="logs", remarks=False)
    assert "#" not in plain
    assert tomllib.loads(text) == tomllib.loads(plain)
    mapping = mapping_of(tomllib.loads(text))
    assert all(report.is_sound for report in check_logs(mapping, tables))
    return mapping


def test_time_reward_and_kinds_are_guessed_from_header_and_rows() -> None:
    mapping = guessed(frame())
    assert (mapping.time, mapping.time_format, mapping.reward.text) == ("stamp", "%d.%m.%Y %H:%M", "-'cost (EUR)'")
    assert mapping.observation == ("time:hour-of-day", "time:day-of-week", "level", "mode")
    assert mapping.categories == {"mode": ("cool", "heat", "off")}
    assert check_logs(mapping, [Frame("site", frame())])[0].transitions == ROWS - 1


def test_what_is_left_out_and_what_must_be_decided_is_said() -> None:
    text = guessed_mapping([Frame("site", frame())], GivenNames(), data="logs")
    assert "# Left out: flat never changes" in text
    assert "# Left out: note has 960 different texts" in text
    assert "# Is the reward of the step that begins in its row?" in text


def test_the_knots_are_those_of_all_sites() -> None:
    alone, both = guessed(frame()), guessed(frame(), frame(low=20.0))
    columns = [mapping.features.columns[2].knots for mapping in (alone, both)]  # type: ignore[attr-defined]
    assert columns[0][-1] < 11.0
    assert columns[1][0] < 1.0
    assert columns[1][-1] > 29.0


def test_what_is_given_is_taken() -> None:
    mapping = guessed(
        frame(), observation=("level", "time:hour-of-day"), reward="level - 'cost (EUR)'", time="stamp"
    )
    assert mapping.observation == ("level", "time:hour-of-day")
    assert mapping.reward.columns == ("level", "cost (EUR)")
    assert guessed(frame(), reward="level").observation[-2:] == ("mode", "cost (EUR)")


def test_numbers_that_count_are_a_time_and_rows_without_one_follow_one_another() -> None:
    counted = frame(t=range(ROWS)).drop(columns="stamp")
    assert guessed(counted).time is None, "t is no name of a time"
    assert guessed(counted.rename(columns={"t": "step"})).time == "step"
    assert guessed(counted, time="t").time == "t"
    dated = frame(stamp=pandas.date_range("2024-01-01", periods=ROWS, freq="h"))
    assert (guessed(dated).time, guessed(dated).observation[0]) == ("stamp", "time:hour-of-day")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"reward": "wages"}, "no column 'wages'.*name another with --reward"),
        ({"observation": ("levle",)}, r"no column 'levle' \(is it 'level'\?\).*name others with --observation"),
        ({"observation": ("note",)}, "note has 960 different texts.*leave it out of --observation"),
        ({"observation": ("flat",)}, "flat never changes"),
        ({"time": "mode"}, "'mode' begins with .* which is no time"),
        ({"time": "when"}, "no column 'when'.*name another with --time"),
    ],
)
def test_names_that_cannot_be_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises((InvalidValueError, TableError), match=words):
        guessed(frame(), **given)


def test_sites_must_have_the_same_columns() -> None:
    with pytest.raises(TableError, match=r"site-1 has no column 'level'.*give all sites the same columns"):
        guessed(frame(), frame().rename(columns={"level": "Pegel"}))
