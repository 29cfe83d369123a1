"""Minari datasets: episodes are chains, and what is no table is named."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cospan.client.logs.check import check_log
from cospan.client.logs.mapping import mapping_of
from cospan.client.logs.tables.minari_table import MinariTable
from cospan.client.logs.tables.sites import tables_of

X = {"kind": "numeric", "range": [0, 9]}


class Datasets:
    """In place of minari."""

    def __init__(self, observations: Any) -> None:
        self._observations = observations

    def load_dataset(self, name: str) -> "Datasets":
        if name != "plant/line-v0":
            raise FileNotFoundError(f"dataset {name} not found")
        return self

    def iterate_episodes(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(observations=self._observations, rewards=[1.0, 2.0, 3.0]) for _ in range(2)]


@pytest.mark.parametrize(
    ("observations", "names"),
    [(np.arange(8.0).reshape(4, 2), ["observation_0", "observation_1"]), (np.arange(4), ["observation"])],
)
def test_episodes_are_chains(monkeypatch: pytest.MonkeyPatch, observations: np.ndarray, names: list[str]) -> None:
    monkeypatch.setitem(sys.modules, "minari", Datasets(observations))
    mapping = mapping_of({"log": {"reward": "reward", "chain": "episode"}, "features": dict.fromkeys(names, X)})
    (table,) = tables_of("minari:plant/line-v0")
    report = check_log(mapping, table)
    assert report.line == "line-v0: 6 transitions in 8 rows; chain cut: 1 by another chain"


@pytest.mark.parametrize(
    ("name", "observations", "words"),
    [
        ("plant/none-v0", np.arange(4), "cannot be read: dataset plant/none-v0 not found"),
        ("plant/line-v0", np.zeros((4, 2, 2)), "flatten them"),
        ("plant/line-v0", np.zeros((4, 3)), "has no column 'observation'"),
    ],
)
def test_what_is_no_table_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, observations: np.ndarray, words: str
) -> None:
    monkeypatch.setitem(sys.modules, "minari", Datasets(observations))
    mapping = mapping_of({"log": {"reward": "reward"}, "features": {"observation": X}})
    report = check_log(mapping, MinariTable(name))
    assert words in str(report.findings[0])


def test_the_package_that_is_needed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    mapping = mapping_of({"log": {"reward": "reward"}, "features": {"observation": X}})
    assert "needs minari" in str(check_log(mapping, MinariTable("plant/line-v0")).findings[0])
