"""Claims and the findings that judge them."""

import dataclasses

import pytest

from cospan.experiments.claims import Claim
from cospan.experiments.runner import WHOLE_FLEET, Point
from cospan.wire.errors import InvalidValueError

D, R, L, AGENTS = 6, 2, 5, 3


def point(method: str, seed: int, error: float, setting: str = "", rounds: int = 10) -> Point:
    return Point(setting, method, seed, WHOLE_FLEET, rounds, rounds * L, 0, error)


def test_a_claim_is_judged_by_the_mean_ratio_to_the_best_baseline() -> None:
    points = [point("a", 1, 1.0), point("a", 2, 3.0), point("b", 1, 2.0), point("b", 2, 9.0), point("c", 2, 3.0)]
    points += [point("c", 1, 5.0), point("a", 1, 70.0, rounds=5)]
    claim = Claim(
        name="x", text="{ratio} times", of=("a", ""), against=[("b", ""), ("c", "")], at_most=0.8, sign_at_most=0.7
    )
    finding = claim.judged(points)
    assert finding.value.value == pytest.approx((1.0 / 2.0 + 3.0 / 3.0) / 2.0)
    assert (finding.holds, finding.sign) == (True, False)
    assert finding.text.startswith("0.75 (")
    assert dataclasses.replace(finding, text="").holds
    assert Claim(name="x", text="", of=("a", ""), against=[("b", "")]).judged(points).holds is None
    least = Claim(name="x", text="", of=("a", ""), against=[("b", "")], at_least=1.0).judged(points)
    assert least.holds is False
    with pytest.raises(InvalidValueError, match="nothing was played"):
        Claim(name="x", text="", of=("a", "20 %"), against=[("b", "")]).judged(points)
