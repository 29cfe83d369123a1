"""Subject and yardstick measured in turns: ratios that a noisy machine cannot shift, with their intervals."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.experiments.estimates import Estimate, median_estimate


@dataclass(frozen=True, eq=False, slots=True)
class Turns:
    """Seconds of several ways to do something, measured in turns: one row a round, one column a way."""

    seconds: Float[np.ndarray, "rounds ways"]

    def median(self, way: int) -> float:
        """Of one way, in seconds."""
        return float(np.median(self.seconds[:, way]))

    def ratio(self, way: int, yardstick: int) -> Estimate:
        """The median over the rounds of what a way takes in units of the yardstick, and its 95 % interval."""
        return median_estimate(self.seconds[:, way] / self.seconds[:, yardstick])


def in_turns(ways: Sequence[Callable[[], object]], *, rounds: int, seconds: float = 0.0) -> Turns:
    """Measures ways in turns, forwards and backwards alternately, after one turn that does not count.

    Args:
        ways: what is measured.
        rounds: how often each at least, 1 or more.
        seconds: further rounds are added until so much time has gone by.
    """
    for way in ways:
        way()
    measured: list[list[float]] = []
    until = time.perf_counter() + seconds
    while len(measured) < rounds or time.perf_counter() < until:
        row = [0.0] * len(ways)
        forwards = range(len(ways))
        for index in forwards if len(measured) % 2 == 0 else reversed(forwards):
            begun = time.perf_counter()
            ways[index]()
            row[index] = time.perf_counter() - begun
        measured.append(row)
    return Turns(np.array(measured))
