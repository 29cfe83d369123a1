"""What observations of a feed may be: arrays of a space, columns of a mapping, times."""

from datetime import UTC, datetime
from typing import Any

import gymnasium
import numpy as np
import pytest
from feed_values import DOCUMENT, MAPPING

from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.feeds.errors import StepRefusedError
from cospan.client.feeds.step_forms import ColumnForm, SpaceForm, StepForm, form_of
from cospan.client.logs.mapping import mapping_of
from cospan.client.workload import SourceSite
from cospan.wire.errors import InvalidValueError

NOON = 1_704_110_400 * 10**9
FULL: dict[str, Any] = {
    "log": {"time": "stamp", "step": "1h", "reward": "-cost"},
    "features": {
        "hour": {"from": "time:hour-of-day", "kind": "cyclic", "period": 24, "knots": 4},
        "level": {"kind": "numeric", "range": [0, 100], "knots": 3},
        "mode": {"kind": "categorical", "values": ["heat", "cool"]},
    },
}


def space_form(space: gymnasium.Space[Any]) -> SpaceForm:
    return SpaceForm(space, step=None, reward_at_next=False)


def test_a_space_gives_back_what_an_environment_would_give() -> None:
    box = space_form(gymnasium.spaces.Box(0.0, 1.0, (2, 2), np.float32))
    numbers = box.numbers([[0.1, 0.2], [0.3, 0.4]], None)
    assert numbers.dtype == np.float64
    back = box.restored(numbers[None])
    assert back.dtype == np.float32
    assert np.array_equal(back[0], np.array([[0.1, 0.2], [0.3, 0.4]], dtype=np.float32))
    discrete = space_form(gymnasium.spaces.Discrete(5))
    assert discrete.restored(discrete.numbers(3, None)[None]).tolist() == [3]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([1.0], r"shape \(1,\); it must be of shape \(2,\)"),
        ("text", "no array of numbers"),
        ([1.0, float("nan")], "not finite"),
        ([1.0, 1e300], "does not fit"),
        ([[1.0], [1.0, 2.0]], "no array of numbers"),
    ],
)
def test_what_does_not_fit_into_a_space_is_refused(given: Any, match: str) -> None:
    with pytest.raises(StepRefusedError, match=match):
        space_form(gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)).numbers(given, None)
    with pytest.raises(StepRefusedError, match="does not fit"):
        space_form(gymnasium.spaces.Discrete(5)).numbers(0.5, None)


def test_spaces_without_numbers_and_sites_without_a_mapping_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="no array of numbers"):
        space_form(gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2)}))
    site = SourceSite(lambda _: None, MAPPING.features)  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidValueError, match="neither environments nor a mapping"):
        form_of(site, step=None, reward_at_next=None)
    queue = make_site(load_workload("queues"), 0, 0)
    assert isinstance(form_of(queue, step=None, reward_at_next=None), StepForm)


def test_columns_are_read_as_a_log_reads_them() -> None:
    form = ColumnForm(mapping_of(FULL), step=None, reward_at_next=None)
    assert form.numbers({"level": "40.5", "mode": "cool", "more": 1}, NOON).tolist() == [12.0, 40.5, 1.0]
    assert form.numbers([12.0, 40.5, "heat"], NOON).tolist() == [12.0, 40.5, 0.0]
    assert form.reward_of({"cost": 2}) == -2.0
    assert form.step == 3600e9
    assert form.part_names == ("time:hour-of-day", "level", "mode")
    with pytest.raises(StepRefusedError, match="mode is 'off'; it must be one of heat, cool"):
        form.numbers({"level": 1, "mode": "off"}, NOON)
    with pytest.raises(StepRefusedError, match="the step has no time, and time:hour-of-day follows from it"):
        form.numbers({"level": 1, "mode": "heat"}, None)
    with pytest.raises(StepRefusedError, match="level is True"):
        form.numbers({"level": True, "mode": "heat"}, NOON)


@pytest.mark.parametrize(
    "at",
    [datetime(2024, 1, 1, 12), datetime(2024, 1, 1, 12, tzinfo=UTC), "2024-01-01T12:00", "2024-01-01T13:00+01:00"],
)
def test_times_are_nanoseconds(at: Any) -> None:
    columns = ColumnForm(mapping_of(FULL), step=None, reward_at_next=None)
    space = space_form(gymnasium.spaces.Discrete(5))
    assert columns.time_of(at) == space.time_of(at) == NOON
    assert space.time_of(NOON / 1e9) == NOON
    assert columns.time_of(NOON / 1e9) == columns.time_of(f"{NOON / 1e9}") == NOON
    numeric = ColumnForm(MAPPING, step=None, reward_at_next=None)
    assert numeric.time_of("3.5") == numeric.time_of(3.5) == 3.5
    assert columns.time_of(None) is space.time_of(None) is None


def test_times_of_another_format_follow_the_mapping() -> None:
    log = {**DOCUMENT["log"], "time_format": "%d.%m.%Y %H:%M"}
    form = ColumnForm(mapping_of({**DOCUMENT, "log": log}), step=None, reward_at_next=None)
    assert form.time_of("01.01.2024 12:00") == NOON
    with pytest.raises(StepRefusedError, match=r"a stamp as %d\.%m"):
        form.time_of("2024-01-01")
