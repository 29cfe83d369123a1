"""Measures a subject and a reference in turns: ratios with intervals that slow phases of a machine do not bias."""

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

    def ratio(self, way: int, reference: int) -> Estimate:
        """The median over the rounds of the time of a way divided by the reference's, and its 95 % interval."""
        return median_estimate(self.seconds[:, way] / self.seconds[:, reference])


def in_turns(ways: Sequence[Callable[[], object]], *, rounds: int, seconds: float = 0.0) -> Turns:
    """Measures ways in turns, forwards and backwards alternately, after one turn that does not count.

    Args:
        ways: what is measured.
        rounds: how often each at least, 1 or more.
        seconds: further rounds are added until this time has passed.
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
