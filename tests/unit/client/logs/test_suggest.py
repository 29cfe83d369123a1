"""Suggested features: as fine as the rows pay for, with the products that matter, as a mapping that can be read."""

import tomllib
from typing import Any

import numpy as np
import pandas
import pytest

from cospan.client.logs.formula import Formula
from cospan.client.logs.held_out import FEWEST_BLOCKS
from cospan.client.logs.log_workload import LogFleet
from cospan.client.logs.mapping import LogMapping, mapping_of
from cospan.client.logs.suggest import Suggestion, suggest
from cospan.client.logs.table_features import ColumnFeatures, TableFeatures
from cospan.client.logs.tables.frame import Frame
from cospan.wire.errors import InvalidValueError

PERIOD = 80
CHANGES = 0.005
"""Of the mode, in a row."""


def frame(rows: int, *, product: bool = False, seed: int = 0) -> pandas.DataFrame:
    """A phase with jitter that goes around, a mode that stays for a while, and a wave of the phase as reward.

    With `product` the mode gives the sign of the wave: without products nothing of it can be learnt.
    """
    rng = np.random.default_rng(seed)
    phase = np.cumsum(1.0 + 0.2 * rng.standard_normal(rows)) % PERIOD
    mode = np.cumsum(rng.random(rows) < CHANGES) % 2
    wave = np.cos(2.0 * np.pi * phase / PERIOD)
    reward = wave * (2.0 * mode - 1.0 if product else 1.0) + 0.1 * rng.standard_normal(rows)
    return _table(rows, {"phase": phase, "mode": np.array(["day shift", "night shift"])[mode], "flat": 1.0}, reward)


REVERTS = 0.9


def straight(rows: int, seed: int = 0) -> pandas.DataFrame:
    """A level that reverts to its mean, and a reward that is the level: its value is a straight line of it."""
    rng = np.random.default_rng(seed)
    level = np.zeros(rows)
    for row in range(1, rows):
        level[row] = REVERTS * level[row - 1] + rng.standard_normal()
    return _table(rows, {"level": level, "noise": rng.standard_normal(rows)}, level)


def _table(rows: int, columns: dict[str, Any], reward: np.ndarray) -> pandas.DataFrame:
    stamps = pandas.date_range("2023-01-01", periods=rows, freq="h")
    return pandas.DataFrame({"at": stamps, **columns, "r": reward})


def suggested(data: pandas.DataFrame, **more: Any) -> Suggestion:
    nothing = TableFeatures((ColumnFeatures("none", "numeric", (0.0, 1.0)),))
    mapping = LogMapping((), Formula.parsed("r", "reward"), nothing, time="at")
    return suggest(mapping, Frame("site", data), **more)


@pytest.mark.parametrize("seed", range(3))
def test_finer_features_are_suggested_where_they_are_needed(seed: int) -> None:
    found = suggested(frame(4000, seed=seed), columns=["phase", "mode"])
    (phase,) = (column for column in found.features.columns if column.name == "phase")
    assert phase.size >= 5, "a wave needs knots"
    assert found.suggested is found.chosen
    assert found.judgement.error < 0.1, "what the jitter leaves open"
    assert found.judgement.coarsest > 0.4, "a straight line is no wave"
    assert found.judgement.gain > 4.0 * found.judgement.gain_spread
    assert found.categories == {"mode": ("day shift", "night shift")}


@pytest.mark.parametrize("seed", range(5))
def test_the_coarsest_features_are_suggested_where_the_value_is_a_straight_line(seed: int) -> None:
    found = suggested(straight(3000, seed), columns=["level", "noise"])
    assert [column.size for column in found.features.columns] == [2, 2]
    assert not found.features.products
    assert found.chosen is found.suggested is found.trials[0]


def test_the_held_out_error_is_the_true_one_within_its_standard_error() -> None:
    """The sum of H rewards is a multiple of the level plus shocks; the share of the shocks is known."""
    judged = [suggested(straight(6000, seed), columns=["level"]) for seed in range(6)]
    scores = []
    for found in judged:
        weights = np.array([REVERTS**step for step in range(found.horizon)])
        foreseen = weights.sum() ** 2 / (1.0 - REVERTS**2)
        shocks = sum(weights[:steps].sum() ** 2 for steps in range(1, found.horizon))
        truth = shocks / (foreseen + shocks)
        assert found.judgement.coarsest == pytest.approx(truth, abs=0.15)
        scores.append((found.judgement.coarsest - truth) / found.judgement.coarsest_spread)
    assert 0.3 < np.sqrt(np.mean(np.square(scores))) < 2.0, "standard errors that say how far off the errors are"


def test_a_map_that_luck_chose_is_not_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of noise nothing can be learnt; the least of dozens of errors says otherwise, and other rows do not."""
    monkeypatch.setattr("cospan.client.logs.suggest._PAYS", 0.0)
    lucky = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        columns = {f"c{number}": rng.standard_normal(900) for number in range(4)}
        found = suggested(_table(900, columns, rng.standard_normal(900)), columns=list(columns))
        assert found.suggested is found.trials[0]
        if found.chosen is not found.trials[0]:
            lucky.append(found.judgement.error - found.chosen.error)
    assert len(lucky) >= 3
    assert np.mean(lucky) > 0.0, "the error that chose a map is too low for it"


def test_a_log_of_few_rows_says_that_it_cannot_tell() -> None:
    found = suggested(frame(600), columns=["phase"])
    assert found.chosen.error < 0.5
    assert found.judgement.blocks < FEWEST_BLOCKS
    assert np.isnan(found.judgement.gain_spread)
    assert found.suggested is found.trials[0]


def test_windows_fit_into_the_third_that_chooses() -> None:
    found = suggested(frame(120), columns=["phase"])
    assert found.horizon < 40
    assert min(trial.error for trial in found.trials) < 1.0


@pytest.mark.parametrize("seed", range(3))
def test_a_product_is_suggested_where_the_reward_is_one(seed: int) -> None:
    data = frame(6000, product=True, seed=seed)
    found = suggested(data, columns=["phase", "mode"])
    assert found.features.products == (("phase", "mode"),)
    assert found.judgement.error < optimum(data, found.horizon) + 0.1
    assert found.judgement.gain > 0.3
    assert min(trial.error for trial in found.trials if not trial.features.products) > 0.8


def optimum(data: pandas.DataFrame, horizon: int) -> float:
    """The error, in the rows that judge, of one who knows how the log was made: the mode may change meanwhile."""
    steps = np.arange(horizon)
    phase = data["phase"].to_numpy()[:, None] + steps
    sign = np.where(data["mode"] == "night shift", 1.0, -1.0)
    foreseen = sign * (np.cos(2.0 * np.pi * phase / PERIOD) @ (1.0 - 2.0 * CHANGES) ** steps)
    sums = np.convolve(data["r"], np.ones(horizon), "valid")
    part = slice(2 * len(data) // 3, len(sums))
    return 1.0 - float(np.corrcoef(foreseen[part], sums[part])[0, 1]) ** 2


def test_the_rows_that_judge_have_no_part_in_the_choice() -> None:
    data = frame(3000)
    other = data.copy()
    other.loc[2000:, "r"] = np.random.default_rng(1).standard_normal(1000)
    first, second = (suggested(each, columns=["phase", "mode"]) for each in (data, other))
    assert [trial.error for trial in first.trials] == [trial.error for trial in second.trials]
    assert (first.chosen.what, first.horizon) == (second.chosen.what, second.horizon)
    assert second.judgement.error > 0.9 > first.judgement.error
    assert second.suggested is second.trials[0]
    assert first.transitions == (999, 999, 999), "transitions from one part to the next are in none"


def test_constant_columns_are_left_out_and_clocks_added() -> None:
    found = suggested(frame(1000))
    assert found.sources == ("time:hour-of-day", "time:day-of-week", "phase", "mode")


def test_the_suggestion_is_a_mapping_that_can_be_learnt_with() -> None:
    data = frame(600, product=True)
    found = suggested(data)
    document = tomllib.loads('[log]\ntime = "at"\nreward = "r"\n' + found.toml)
    mapping = mapping_of(document)
    assert mapping.features.dim == found.features.dim
    assert LogFleet.of_frames({"site": data}, mapping).reports[0].is_sound


@pytest.mark.parametrize(
    ("data", "more", "words"),
    [
        (frame(50), {}, "50 transitions|49 transitions"),
        (frame(300).assign(r=lambda data: data["r"].where(data.index < 190)), {}, "thirds of site have 99, 90, 0"),
        (frame(300), {"columns": ["flat"]}, "no column of site ever changes"),
        (frame(300), {"columns": []}, "no columns to make features of"),
        (frame(300).assign(mode=[f"m{row}" for row in range(300)]), {"columns": ["mode"]}, "300 different texts"),
    ],
)
def test_what_features_cannot_be_made_of_is_named(data: pandas.DataFrame, more: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        suggested(data, **more)
