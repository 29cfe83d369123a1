"""When a curve settles, and how many samples it takes to an error."""

import math

from cospan.experiments.plots.curves import samples_to, settles
from cospan.experiments.runner import WHOLE_FLEET, Point

D, R, L, AGENTS = 6, 2, 5, 3


def point(method: str, seed: int, error: float, setting: str = "", rounds: int = 10) -> Point:
    return Point(setting, method, seed, WHOLE_FLEET, rounds, rounds * L, 0, error)


def test_it_settles_after_the_last_time_that_it_was_off() -> None:
    assert settles([False, True, False, True, True], [1, 2, 3, 4, 5]) == 4.0
    assert settles([True, True], [1, 2]) == 1.0
    assert settles([True, False], [1, 2]) == math.inf
    curve = [point("a", 1, error, rounds=r) for r, error in ((3, 0.1), (1, 0.9), (2, 0.3))]
    assert samples_to(curve, "a", 1, 0.3) == 2 * L
