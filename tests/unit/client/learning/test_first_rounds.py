"""What the first rounds say of actions and of features."""

import math

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Space
from runs import RINGS

from cospan.client.environment.actions import problem_of_action
from cospan.client.features import RadialBasisFeatures
from cospan.client.learning.first_rounds import FirstRounds
from cospan.client.learning.group_blocks import GroupSites
from cospan.client.learning.group_learner import GroupLearner
from cospan.client.learning.run_config import specify

UNIT = Box(-1.0, 1.0, (2,), np.float32)


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (Discrete(3), 2),
        (Discrete(3, start=-1), -1),
        (Discrete(3), np.int64(0)),
        (Discrete(3), np.array(1)),
        (Discrete(3), True),
        (UNIT, np.array([0.5, -1.0])),
        (UNIT, [1.0, 1.0000001]),
        (Box(-np.inf, np.inf, (1,)), np.array([1e300])),
        (MultiDiscrete([2, 3]), [1, 2]),
        (Dict({"a": Discrete(2)}), {"a": 1}),
    ],
)
def test_an_action_is_judged_by_its_value(space: Space, action: object) -> None:
    """And not by its type: an environment takes a float64 for a float32."""
    assert problem_of_action(space, action) == ""


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (Discrete(3), 3),
        (Discrete(3), 0.5),
        (Discrete(3), "left"),
        (Discrete(3), None),
        (Discrete(3), [1, 1]),
        (UNIT, np.array([0.5, -1.1])),
        (UNIT, np.array([0.5])),
        (UNIT, [math.nan, 0.0]),
        (MultiDiscrete([2, 3]), [2, 0]),
        (Dict({"a": Discrete(2)}), {"a": 2}),
    ],
)
def test_an_action_outside_its_space_is_shown_with_the_space(space: Space, action: object) -> None:
    assert problem_of_action(space, action) == f"outside its action_space {space}: {action!r}"


def looked(rows: np.ndarray) -> str:
    check = FirstRounds("site-4", rows.shape[1])
    return next(filter(None, (check.look(part) for part in np.array_split(rows, 20))), "")


def test_shares_that_sum_to_one_on_the_chain_are_a_constant() -> None:
    """On the box that they live in they do not."""
    part = np.random.default_rng(1).random((400, 1))
    sentence = looked(np.concatenate([part, 1.0 - part], axis=1) / 2.0)
    assert sentence.startswith("the features of site-4 have a constant function in their span: over the 200")
    assert "leave out one feature, or centre them" in sentence


def test_a_feature_that_never_changes_is_a_constant() -> None:
    moving = np.random.default_rng(1).random((400, 2)) / 2.0
    assert "have a constant function" in looked(np.concatenate([moving, np.full((400, 1), 0.3)], axis=1))


def test_good_features_are_not_warned_of() -> None:
    rng = np.random.default_rng(2)
    assert looked(rng.normal(size=(400, 5)) / 10.0) == ""
    one_hot = np.eye(8)[:, :-1]
    assert looked(one_hot[rng.integers(8, size=400)]) == ""
    assert looked(one_hot[rng.integers(3, size=400)]) == "", "a chain that has seen few states says nothing"
    assert looked(np.zeros((400, 3))) == ""
    assert looked(np.full((400, 2), 0.5)) == "", "a chain that rests in one state says nothing"


def test_few_states_that_bumps_tell_apart_badly_say_nothing() -> None:
    """Ten states and eleven bumps, some nearly dependent: any function of ten states is in their span."""
    bumps = RadialBasisFeatures([0.0], [40.0], 12)
    assert looked(bumps.batch(np.random.default_rng(3).integers(10, size=(400, 1)).astype(float))) == ""


def test_it_judges_once_and_not_too_large_maps() -> None:
    check = FirstRounds("a", 2)
    part = np.random.default_rng(1).random((200, 1))
    rows = np.concatenate([part, 1.0 - part], axis=1) / 2.0
    assert check.look(rows[:199]) == ""
    assert check.look(rows[:1]) != ""
    assert check.look(rows) == ""
    assert FirstRounds("a", 129).look(np.full((5000, 129), 0.05)) == ""


def test_a_group_without_its_first_member_judges_the_others_each_by_its_own() -> None:
    spec = specify(RINGS, agents=3)
    sites = GroupSites.of(RINGS, range(3), spec.feature_dim, 0)
    group = GroupLearner(sites, spec, names=["site-0", "site-1", "site-2"])
    seen = list(zip(group.names, group._first_rounds, strict=True))
    group.drop({"site-0": "for a test"})
    assert list(zip(group.names, group._first_rounds, strict=True)) == seen[1:]
