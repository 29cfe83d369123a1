"""Plans: the best that could have been done with what was observed, from several stocks."""

import itertools

import numpy as np
import pytest
from stores import CAPACITY, STOCK, Store, observed, rewarded, stocked

from cospan.client.decisions import hindsight
from cospan.client.decisions.hindsight import LEVELS, controlled_axis, plan, planned_over, reachable_range

PRICES = [1.0, 3.0, 1.0, 1.0, 3.0, 3.0, 1.0, 3.0, 1.0]


def best_by_trying(prices: list[float], stock: float) -> float:
    """Of all sequences of trades."""
    best = -np.inf
    for actions in itertools.product([0, 1, 2], repeat=len(prices)):
        held, earned = stock, 0.0
        for price, action in zip(prices, actions, strict=True):
            seen = np.array([[price, held]])
            earned += float(rewarded(seen, np.array([action]))[0])
            held = float(stocked(seen, np.array([action]))[0, STOCK])
        best = max(best, earned)
    return best


def test_a_plan_is_the_best_of_all_sequences_of_actions() -> None:
    block = 3
    made = plan(Store().policy(), observed(PRICES), STOCK, (0.0, CAPACITY), block)
    # Blocks end with the observations, and look ahead for one more: moments 2, 3, 4 of nine observations.
    assert made.returns.shape == (3, LEVELS)
    np.testing.assert_array_equal(made.afterstates[:, 0, STOCK], 0.0)
    np.testing.assert_allclose(made.afterstates[0, :, STOCK], np.linspace(0.0, CAPACITY, LEVELS))
    end = 2 + 2 * block
    for place, moment in enumerate((2, 3, 4)):
        np.testing.assert_array_equal(made.afterstates[place, :, 0], PRICES[moment])
        for level, stock in ((0, 0.0), (3, 1.0), (6, 2.0)):
            expected = best_by_trying(PRICES[moment + 1 : end + 1], stock)
            assert made.returns[place, level] == pytest.approx(expected), (moment, stock)


def test_a_later_plan_of_the_same_steps_is_the_same() -> None:
    policy, seen = Store().policy(), observed(PRICES * 4)
    whole, earlier = (plan(policy, each, STOCK, (0.0, CAPACITY), 3) for each in (seen, seen[:-3]))
    np.testing.assert_array_equal(whole.returns[:-3], earlier.returns)
    joined = earlier.joined_with(whole.taken(np.arange(len(whole.returns) - 3, len(whole.returns))))
    np.testing.assert_array_equal(joined.returns, whole.returns)


@pytest.mark.parametrize("kept", [2**22, 0])
def test_what_is_computed_at_once_changes_no_bit(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, seen = Store().policy(), observed(PRICES * 4)
    whole = plan(policy, seen, STOCK, (0.0, CAPACITY), 3)
    monkeypatch.setattr(hindsight, "_MOST_ROWS", 60)  # two segments
    monkeypatch.setattr(hindsight, "_MOST_KEPT", kept)
    np.testing.assert_array_equal(plan(policy, seen, STOCK, (0.0, CAPACITY), 3).returns, whole.returns)


def test_the_number_that_actions_change_is_found() -> None:
    seen = observed(PRICES)
    assert controlled_axis(Store().policy(), seen) == STOCK
    assert controlled_axis(Store().policy(replayed=None), seen) is None
    assert controlled_axis(Store().policy(), seen[:1]) is None
    both = Store().policy(replayed=lambda seen, after: after)
    assert controlled_axis(both, seen) is None
    leaks = Store().policy(replayed=lambda seen, after: np.column_stack([seen[:, 0], 0.9 * after[:, 1] + 0.01]))
    assert controlled_axis(leaks, seen) is None


def test_the_range_is_what_actions_can_lead_to_and_not_what_was_seen() -> None:
    policy, seen = Store().policy(), observed(PRICES)
    assert reachable_range(policy, seen, STOCK, 3) == (0.0, CAPACITY)
    idle = Store().policy(afterstates=lambda seen, _: seen)
    assert reachable_range(idle, seen, STOCK, 3) is None
    assert planned_over(idle, seen, 3) is None


def test_too_few_steps_have_no_plan() -> None:
    assert planned_over(Store().policy(), observed(PRICES[:6]), 3) is None
    assert planned_over(Store().policy(), observed(PRICES[:7]), 3) is not None
