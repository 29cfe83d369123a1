"""Mappings: what a TOML file says, and sentences about what it says wrongly."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from cospan.client.logs.mapping import LogMapping, load_mapping, mapping_of, step_of
from cospan.client.logs.table_features import TableFeatures
from cospan.client.workloads.microgrids import FEATURES
from cospan.wire.errors import InvalidValueError

WHOLE = """
[log]
data = "stations/*.csv"
time = "stamp"
step = "15min"
reward = "-cost * price"
reward_at = "next-row"
chain = "battery"
missing = ["", "?"]
[run]
rank = 4
steps_per_round = 96
[features.hour]
from = "time:hour-of-day"
kind = "cyclic"
knots = 8
[features.level]
kind = "numeric"
range = [0, 100]
knots = 5
[features.mode]
kind = "categorical"
values = ["heat", "off"]
[products]
pairs = [["hour", "level"]]
"""


def test_a_mapping_says_all_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(WHOLE, encoding="utf-8")
    found = load_mapping(path)
    assert found.observation == ("time:hour-of-day", "level", "mode")
    assert found.columns == ("level", "mode", "cost", "price", "stamp", "battery")
    assert found.numbers == {"level", "cost", "price"}
    assert (found.step, found.reward_at_next, found.chain, found.missing) == (900e9, True, "battery", ("", "?"))
    assert (found.rank, found.steps_per_round, found.data) == (4, 96, "stations/*.csv")
    assert found.categories == {"mode": ("heat", "off")}
    assert isinstance(found.features, TableFeatures)
    assert found.features.dim == 7 + 4 + 1 + 7 * 4


def test_features_may_be_those_of_a_workload_or_a_module() -> None:
    log = {"reward": "r", "observation": ["hour", "charge", "outlook", "net_load", "grid_up"]}
    for name in ("workload:microgrids", "cospan.client.workloads.microgrids:FEATURES"):
        found = mapping_of({"log": log, "features": {"map": name}})
        assert found.features.fingerprint == FEATURES.fingerprint


def changed(**changes: Any) -> dict[str, Any]:
    values = tomllib.loads(WHOLE)
    for key, value in changes.items():
        table, _, name = key.partition("__")
        part = values.setdefault(table, {})
        for step in name.split("__")[:-1]:
            part = part[step]
        last = name.split("__")[-1]
        if value is None:
            part.pop(last, None)
        else:
            part[last] = value
    return values


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"log__reward": None}, "names no reward"),
        ({"log__reward": "import os"}, "reward = 'import os' is no formula"),
        ({"log__rewrad": "x"}, "log.rewrad, which is no key of a mapping; did you mean reward"),
        ({"log__step": "fortnight"}, "log.step in fleet.toml is 'fortnight'"),
        ({"log__tolerance": 0.7}, "log.tolerance is 0.7"),
        ({"log__reward_at": "later"}, "must be 'row' or 'next-row'"),
        ({"log__time": None}, "uses time:hour-of-day and names no time"),
        ({"log__missing": "NA"}, "log.missing is 'NA' in fleet.toml; it must be a list of texts"),
        ({"run__rank": 0}, "run.rank is 0 in fleet.toml; it must be a whole number, 1 or more"),
        ({"features__level__kind": "spline"}, "features.level.kind is 'spline'"),
        ({"features__level__range": [5, 1]}, r"features.level.range is \[5.0, 1.0\]"),
        ({"features__level__range": None}, "features.level.range is None"),
        ({"features__level__knots": [1, 1]}, "ascending"),
        ({"features__hour__from": "time:moon"}, "features.hour.from is 'time:moon'"),
        ({"features__mode__values": "heat"}, "features.mode.values is 'heat'"),
        ({"features__map": "workload:queues"}, "alone in its section"),
        ({"products__pairs": [["hour", "lever"]]}, "two or more different columns"),
        ({"more__x": 1}, "has more, which is no key of a mapping"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        mapping_of(changed(**changes), "fleet.toml")


def test_a_mapping_without_features_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="cospan features suggest"):
        mapping_of({"log": {"reward": "r"}}, "fleet.toml")


@pytest.mark.parametrize("text", [None, "not toml ["])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "fleet.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidValueError, match=r"the mapping .*fleet.toml cannot be read"):
        load_mapping(path)


def test_steps() -> None:
    assert [step_of(text, "step") for text in ("500ms", "2 s", "15min", "1h", "1d", 1, 0.5)] == [
        *(5e8, 2e9, 9e11, 3.6e12, 8.64e13),
        *(1.0, 0.5),
    ]
    for wrong in ("0h", 0, -1, True, None, "1 hour"):
        with pytest.raises(InvalidValueError, match="a duration"):
            step_of(wrong, "step")


def test_a_mapping_is_no_default_for_another() -> None:
    first, second = (mapping_of(tomllib.loads(WHOLE)) for _ in range(2))
    assert isinstance(first, LogMapping)
    assert first.features.fingerprint == second.features.fingerprint
