"""A method against LSTD alone, site by site."""

import dataclasses

import numpy as np
import pytest

from cospan.experiments.kinds.sharing.against_alone import SiteErrors, compared, ratio_of_means
from cospan.experiments.runner import WHOLE_FLEET, Point
from cospan.wire.errors import InvalidValueError

POINT = Point("", "joint", 1, WHOLE_FLEET, 10, 50, 0, 9.0)


def of_sites(method: str, seed: int, *errors: float) -> list[Point]:
    return [
        dataclasses.replace(POINT, method=method, seed=seed, agent=agent, value_error=error)
        for agent, error in enumerate(errors)
    ]


def test_sites_are_judged_by_their_errors_averaged_over_the_seeds() -> None:
    points = [
        POINT,
        *of_sites("joint", 1, 1.0, 2.0, 6.0),
        *of_sites("joint", 2, 3.0, 2.0, 4.0),
        *of_sites("LSTD alone", 1, 2.0, 4.0, 4.0),
        *of_sites("LSTD alone", 2, 2.0, 4.0, 4.0),
    ]
    found = SiteErrors.of(points).against_alone("joint", 10)
    assert found.median.value == pytest.approx(2.5 / 4.0), "medians 2 and 3, of LSTD 4 and 4"
    assert found.mean.value == pytest.approx(3.0 / (10.0 / 3.0))
    assert (found.worse, found.sites) == (1, 3), "site 0 is worse in one seed only"
    assert found.worse_in_a_run.value == 1.0
    some = SiteErrors.of(points).against_alone("joint", 10, agents=range(2))
    assert (some.worse, some.sites) == (0, 2)


def test_missing_runs_are_named() -> None:
    with pytest.raises(InvalidValueError, match="'joint' with setting '' and 20 rounds"):
        SiteErrors.of([]).at("joint", 20)


def test_a_ratio_of_means_does_not_weigh_small_runs_more() -> None:
    own, others = np.array([1.0, 3.0]), np.array([1.0, 9.0])
    found = ratio_of_means(own, others)
    assert found.value == pytest.approx(0.4)
    assert (found.low, found.high) == (pytest.approx(1.0 / 3.0), pytest.approx(1.0))
    assert ratio_of_means(own[:1], others[:1]).low is None
    assert compared(own[:, None], others[:, None]).worse == 0
