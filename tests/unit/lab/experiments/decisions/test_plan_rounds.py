"""What a fleet is given of plans: differences at one moment, and cuts between them."""

import numpy as np
from stores import Store

from cospan.client.decisions.hindsight import planned_over
from cospan.experiments.decisions.plan_rounds import differences

SEEN = np.array([[1.0, 0.0], [3.0, 0.0]] * 6)


def test_every_second_slot_is_a_difference_of_two_levels_of_one_moment() -> None:
    policy = Store().policy()
    made = planned_over(policy, SEEN, 2)
    assert made is not None
    given = differences(policy, made, 8, np.random.default_rng(0))
    assert given.is_transition is not None
    assert given.is_transition.tolist() == [True, False] * 4
    np.testing.assert_array_equal(given.features[1::2], 0.0)
    phi = made.features(policy)
    apart, returns = phi[:, :, None] - phi[:, None], made.returns[:, :, None] - made.returns[:, None]
    for row, reward in zip(given.features[:-1:2], given.rewards[::2], strict=True):
        alike = np.abs(apart - row).max(axis=-1) < 1e-12
        assert np.abs(returns[alike] - reward).min() < 1e-9
    assert np.any(given.rewards)


def test_without_a_plan_or_with_one_slot_all_are_cuts() -> None:
    policy = Store().policy()
    made = planned_over(policy, SEEN, 2)
    assert differences(policy, made, 1, np.random.default_rng(0)).transitions == 0
    assert differences(policy, None, 4, np.random.default_rng(0)).transitions == 0
