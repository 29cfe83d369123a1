"""The numbers of an observation, whatever its space."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from cospan.cli.values.coordinates import chosen, coordinates_of, fixed, listing, table_of
from cospan.wire.errors import InvalidValueError


class _Env(gymnasium.Env[Any, Any]):
    def __init__(self, space: spaces.Space[Any], names: tuple[str, ...] | None = None) -> None:
        self.observation_space = space
        if names is not None:
            self.observation_names = names


def box(*shape: int, dtype: Any = np.float64) -> spaces.Box:
    return spaces.Box(0, 9, shape, dtype)


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (box(3), ["0", "1", "2"]),
        (box(), ["observation"]),
        (spaces.Discrete(4), ["state"]),
        (spaces.MultiDiscrete([2, 3]), ["0", "1"]),
        (spaces.Dict({"tank": box(1), "clock": spaces.Discrete(24)}), ["tank", "clock"]),
        (spaces.Dict({"tank": box(2)}), ["tank[0]", "tank[1]"]),
        (spaces.Tuple((box(1), spaces.Discrete(3))), ["0", "1"]),
        (spaces.Dict({"a": spaces.Dict({"b": box(1)})}), ["a.b"]),
        (box(2, 2), ["0,0", "0,1", "1,0", "1,1"]),
    ],
    ids=str,
)
def test_every_number_is_read_and_changed_alone(space: spaces.Space[Any], names: list[str]) -> None:
    space.seed(3)
    coordinates, observation = coordinates_of(_Env(space)), space.sample()
    assert sorted(each.name for each in coordinates) == sorted(names)
    before = table_of(coordinates, [observation])[0]
    for place, each in enumerate(coordinates):
        changed = each.changed(observation, 1.0 if before[place] != 1.0 else 0.0)
        after = table_of(coordinates, [changed])[0]
        assert np.flatnonzero(after != before).tolist() == [place]
        assert space.contains(changed)
        np.testing.assert_array_equal(table_of(coordinates, [observation])[0], before)


def test_an_environment_may_name_its_numbers() -> None:
    coordinates = coordinates_of(_Env(box(2), ("hour", "charge")))
    assert chosen(coordinates, "charge,0", "--over") == [coordinates[1], coordinates[0]]
    assert fixed(coordinates, "charge=0.5, hour=7") == {coordinates[1]: 0.5, coordinates[0]: 7.0}
    assert listing(coordinates, {"hour": (0.0, 23.0), "charge": (0.0, 1.0)}) == (
        "hour (or 0) from 0 to 23, charge (or 1) from 0 to 1"
    )
    with pytest.raises(InvalidValueError, match="has 1 names, and an observation 2 numbers"):
        coordinates_of(_Env(box(2), ("hour",)))


@pytest.mark.parametrize(
    ("flag", "text", "says"),
    [
        ("--over", "minute", "there is no coordinate 'minute' in --over; an observation has hour"),
        ("--over", "2", "there is no coordinate '2'"),
        ("--over", "hour,0", "coordinate 'hour' is twice in --over"),
        ("--at", "hour", "'hour' in --at must be name=number, for example hour=1"),
        ("--at", "hour=noon", "must be name=number"),
        ("--at", "hour=nan", "must be name=number"),
        ("--at", "=3", "must be name=number"),
        ("--at", "minute=3", "there is no coordinate 'minute' in --at"),
    ],
)
def test_a_wrong_coordinate_is_told_which_there_are(flag: str, text: str, says: str) -> None:
    coordinates = coordinates_of(_Env(box(2), ("hour", "charge")))
    with pytest.raises(InvalidValueError, match=says):
        chosen(coordinates, text, flag) if flag == "--over" else fixed(coordinates, text)


def test_observations_without_numbers_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="of a Text space"):
        coordinates_of(_Env(spaces.Text(5)))


@pytest.mark.parametrize(
    ("space", "text", "words"),
    [
        (spaces.Discrete(44), "state=700", "state=700 is outside what this environment observes; state is 0 to 43"),
        (spaces.Discrete(3, start=5), "state=4", "state is 5 to 7"),
        (spaces.MultiDiscrete([2, 3]), "1=3", "1 is 0 to 2"),
        (spaces.MultiBinary(2), "0=-1", "0 is 0 to 1"),
        (spaces.Box(0.0, np.inf, (2,), np.float64), "1=-0.5", "1 is at least 0"),
        (spaces.Box(-np.inf, 2.0, (2,), np.float64), "1=3", "1 is at most 2"),
    ],
    ids=str,
)
def test_a_number_outside_the_space_is_refused_with_the_range(
    space: spaces.Space[Any], text: str, words: str
) -> None:
    with pytest.raises(InvalidValueError) as refused:
        fixed(coordinates_of(_Env(space)), text)
    assert words in str(refused.value)


def test_the_bounds_themselves_are_inside_also_in_single_precision() -> None:
    space = spaces.Box(np.float32(0.1), np.float32(0.7), (1,), np.float32)
    (coordinate,) = coordinates_of(_Env(space))
    assert fixed([coordinate], "0=0.1") == {coordinate: 0.1}
    assert fixed([coordinate], "0=0.7") == {coordinate: 0.7}
