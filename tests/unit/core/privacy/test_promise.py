"""Runs with differential privacy that cannot be, and a promise that the noise does not keep."""

from dataclasses import replace
from typing import Any

import pytest
from private_runs import PROMISE, private
from runs import specification

from cospan.core.method import compact, full_history, paper
from cospan.core.privacy.promise import OF_PRIVACY
from cospan.core.secure_sums.announcement import specification_digest

IMPROVING = {"improve": 1, "evaluation_rounds": 2, "trial_rounds": 2, "explore": 0.1, "confidence": 0.9}


def test_a_run_that_keeps_its_promise_has_no_problem() -> None:
    assert private().problems() == []
    assert private().is_private
    assert not specification().is_private


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"secure_sums": False, "min_cohort": 0}, "differential privacy needs secure sums"),
        ({"rounds": 0}, "rounds is 0; a budget is for a number of rounds"),
        ({**IMPROVING}, "improvement steps send more than the vector"),
        ({"method": paper(3)}, "is for the preset practical, and this run has end-of-round head updates"),
        ({"method": compact(3)}, "is for the preset practical"),
        ({"method": full_history(3)}, "is for the preset practical"),
        ({"dp_vectors": 5}, "dp_vectors is 5 and rounds is 6"),
        ({"dp_delta": 0.2}, "dp_delta is 0.2 and agents is 5; it must be below 1 / agents"),
        ({"dp_noise_multiplier": 1.9}, "10 vectors with it cost ε = 8.589"),
        ({"dp_vectors": 11}, "11 vectors with it cost"),
        ({"dp_epsilon": 7.0}, "and 7 is promised"),
        ({"dp_epsilon": 101.0}, "dp_epsilon is 101"),
        ({"dp_epsilon": float("nan")}, "dp_epsilon is nan"),
        ({"dp_gradient_bound": 0.0}, "dp_gradient_bound is 0"),
        ({"dp_influence_bound": float("inf")}, "dp_influence_bound is inf"),
        ({"dp_epsilon": 0.0}, "dp_delta is 1e-05; it must be 0, or say dp_epsilon"),
        ({"min_cohort": 6}, "of fewer processes than min_cohort"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(changes: dict[str, Any], problem: str) -> None:
    assert problem in "; ".join(private(**changes).problems())


def test_all_its_numbers_are_part_of_the_announcement_and_of_the_digest() -> None:
    """So the masks of agents that were promised different things do not cancel."""
    spec = private()
    others = [replace(spec, **{name: getattr(spec, name) + 1}) for name in OF_PRIVACY]
    assert len({specification_digest(each) for each in [spec, *others]}) == 1 + len(OF_PRIVACY)
    assert len({each.digest() for each in [spec, *others]}) == 1 + len(OF_PRIVACY)
    assert set(PROMISE) == set(OF_PRIVACY)


def test_a_run_without_it_has_the_digest_of_before() -> None:
    """That of a version that does not know these fields."""
    found = specification().digest()
    assert found == "cf89d61691a158e747ec05b8702dbfcab02ffec5e5bcd807223f411e130dcc5d"
