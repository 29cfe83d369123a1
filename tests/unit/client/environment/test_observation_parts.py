"""The parts of observations as numbers, and which of them no action changes."""

from typing import Any

import numpy as np
import pytest

from cospan.client.environment.observation_parts import MOST_PARTS, exogenous_of, part_names, parts_of
from cospan.wire.errors import WorkloadBehaviourError


@pytest.mark.parametrize(
    ("observations", "rows", "names"),
    [
        ([3, 5], [[3], [5]], ("observation",)),
        ([np.array([1.0, 2.0]), np.array([3.0, 4.0])], [[1, 2], [3, 4]], ("observation[0]", "observation[1]")),
        (np.array([[1.0, 2.0]]), [[1, 2]], ("observation[0]", "observation[1]")),
        (
            [{"hour": 7, "tanks": np.array([1.0, 2.0])}],
            [[7, 1, 2]],
            ("observation['hour']", "observation['tanks'][0]", "observation['tanks'][1]"),
        ),
        ([(1, np.array([True]))], [[1, 1]], ("observation[0]", "observation[1][0]")),
        (["sunny"], [[]], ()),
        ([(1, "sunny")], [[]], ()),
        ([np.zeros(MOST_PARTS + 1)], [[]], ()),
        ([np.array([np.nan])], [[]], ()),
    ],
)
def test_every_number_has_a_column_and_a_name(observations: Any, rows: Any, names: tuple[str, ...]) -> None:
    np.testing.assert_array_equal(parts_of(observations), np.array(rows, dtype=float))
    assert part_names(observations[0]) == names


def test_exogenous_parts_are_named_by_place_or_key_or_given_by_a_function() -> None:
    arrays = [np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])]
    np.testing.assert_array_equal(exogenous_of((2, 0), arrays), [[3, 1], [6, 4]])
    named = [{"hour": 7, "sky": np.array([0.1, 0.2])}, {"hour": 8, "sky": np.array([0.3, 0.4])}]
    np.testing.assert_array_equal(exogenous_of(("sky",), named), [[0.1, 0.2], [0.3, 0.4]])
    np.testing.assert_array_equal(exogenous_of(lambda states: np.asarray(states) % 4, [9, 6]), [[1], [2]])
    assert exogenous_of((), arrays).shape == (2, 0)


@pytest.mark.parametrize(
    ("exogenous", "says"),
    [
        ((5,), "names 5 as an exogenous part, and the observation array.* has no such part that is a number"),
        (("hour",), "names 'hour' as an exogenous part"),
        (lambda _: np.zeros(3), "gave an array of shape .3, 1. for 2 observations; it must give a row"),
        (lambda _: 1 / 0, "function of the exogenous parts failed: ZeroDivisionError"),
        (lambda states: np.full(len(states), np.nan), "is not finite"),
    ],
)
def test_parts_that_are_not_there_are_refused(exogenous: Any, says: str) -> None:
    with pytest.raises(WorkloadBehaviourError, match=says):
        exogenous_of(exogenous, [np.zeros(2), np.ones(2)])
