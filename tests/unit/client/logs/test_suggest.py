"""Suggested features: as fine as the rows pay for, with the products that matter, as a mapping that can be read."""

import tomllib
from typing import Any

import numpy as np
import pandas
import pytest

from cospan.client.logs.formula import Formula
from cospan.client.logs.log_workload import LogFleet
from cospan.client.logs.mapping import LogMapping, mapping_of
from cospan.client.logs.suggest import Suggestion, suggest
from cospan.client.logs.table_features import ColumnFeatures, TableFeatures
from cospan.client.logs.tables.frame import Frame
from cospan.wire.errors import InvalidValueError


def frame(rows: int, *, product: bool = False, seed: int = 0) -> pandas.DataFrame:
    """A level that reverts to its mean, a mode that stays for a while, and a reward that depends on both."""
    rng = np.random.default_rng(seed)
    level, mode = np.zeros(rows), np.zeros(rows, dtype=int)
    for row in range(1, rows):
        level[row] = 0.9 * level[row - 1] + 0.4 * rng.standard_normal()
        mode[row] = mode[row - 1] if rng.random() < 0.9 else 1 - mode[row - 1]
    wave = np.sin(3.0 * level)
    reward = wave * (2.0 * mode - 1.0 if product else 1.0) + 0.1 * rng.standard_normal(rows)
    stamps = pandas.date_range("2023-01-01", periods=rows, freq="h")
    names = np.array(["day shift", "night shift"])[mode]
    return pandas.DataFrame({"at": stamps, "level": level, "mode": names, "flat": 1.0, "r": reward})


def suggested(data: pandas.DataFrame, **more: Any) -> Suggestion:
    nothing = TableFeatures((ColumnFeatures("none", "numeric", (0.0, 1.0)),))
    mapping = LogMapping((), Formula.parsed("r", "reward"), nothing, time="at")
    return suggest(mapping, Frame("site", data), **more)


def test_finer_features_are_suggested_where_they_pay() -> None:
    found = suggested(frame(4000), columns=["level", "mode"])
    (level,) = (column for column in found.chosen.features.columns if column.name == "level")
    assert level.size >= 5, "a wave of the level needs knots"
    assert found.chosen.error < 0.95 * found.trials[0].error
    assert found.categories == {"mode": ("day shift", "night shift")}
    assert found.transitions[0] + found.transitions[1] == 3998, "the transition across the split is in neither"


def test_a_product_is_suggested_where_the_reward_is_one() -> None:
    found = suggested(frame(4000, product=True), columns=["level", "mode"])
    assert found.chosen.features.products == (("level", "mode"),)
    assert found.chosen.error < 0.95 * min(trial.error for trial in found.trials if not trial.features.products)


def test_constant_columns_are_left_out_and_clocks_added() -> None:
    found = suggested(frame(1000))
    assert found.sources == ("time:hour-of-day", "time:day-of-week", "level", "mode")


def test_the_suggestion_is_a_mapping_that_can_be_learnt_with() -> None:
    data = frame(600, product=True)
    found = suggested(data)
    document = tomllib.loads('[log]\ntime = "at"\nreward = "r"\n' + found.toml)
    mapping = mapping_of(document)
    assert mapping.features.dim == found.chosen.features.dim
    assert LogFleet.of_frames({"site": data}, mapping).reports[0].is_sound


@pytest.mark.parametrize(
    ("data", "more", "words"),
    [
        (frame(50), {}, "50 transitions|49 transitions"),
        (frame(300), {"columns": ["flat"]}, "no column of site ever changes"),
        (frame(300), {"columns": []}, "no columns to make features of"),
        (frame(300).assign(mode=[f"m{row}" for row in range(300)]), {"columns": ["mode"]}, "300 different texts"),
    ],
)
def test_what_features_cannot_be_made_of_is_named(data: pandas.DataFrame, more: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        suggested(data, **more)
