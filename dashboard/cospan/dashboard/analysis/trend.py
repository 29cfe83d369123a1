"""Whether a run still learns: what moved between its middle and now."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.dashboard.series import RoundSeries

_FEWEST_ROUNDS = 20
"""Before them nothing can be said."""
_MOST_SNAPSHOTS = 8
_GROWTH = 1.25
"""A snapshot is kept if it is this many times older than the next one."""
STILL, SLOWLY = 0.1, 0.02
"""Relative changes since the middle of the run: above the first it still learns, below the second it is at rest."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A change between the middle of a run and now.

    Attributes:
        what: `value error`, `prior` or `movement`.
        since: the round in the middle.
        then: the value there; 1 for the prior.
        now: the value now.
        change: relative, signed; of the prior, and of errors that fall, it is positive where the run learns.
    """

    what: str
    since: int
    then: float
    now: float
    change: float


def prior_change(
    old: tuple[Float[np.ndarray, "d r"], Float[np.ndarray, "r r"]],
    new: tuple[Float[np.ndarray, "d r"], Float[np.ndarray, "r r"]],
) -> float:
    """‖Γ − Γ'‖ / ‖Γ‖ (Frobenius) for Γ = B W Bᵀ, what the fleet says of every agent's weights before its data do.

    Directions that W has switched off do not count, although they go on turning: the movement of the whole basis
    says nothing of them. 0 for the same prior, 1 and more for one that has nothing in common.

    Args:
        old: B and W then.
        new: B and W now.
    """
    (b, w), (c, v) = old, new
    turn = b.T @ c
    shared = float(np.sum((w @ turn) * (turn @ v)))
    squares = float(np.sum(w * w)), float(np.sum(v * v))
    return (
        float(np.sqrt(max(0.0, squares[0] + squares[1] - 2.0 * shared) / squares[1])) if squares[1] > 0.0 else 0.0
    )


class PriorSnapshots:
    """A few priors of earlier rounds, so that the newest can be compared with that of the middle of the run."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, Float[np.ndarray, "d r"], Float[np.ndarray, "r r"]]] = []

    def note(self, number: int, basis: Float[np.ndarray, "d r"], covariance: Float[np.ndarray, "r r"]) -> None:
        """Takes the prior after `number` rounds; the arrays are kept, not copied."""
        if self._kept and number < _GROWTH * max(1, self._kept[-1][0]):
            return
        self._kept = [*self._kept, (number, basis, covariance)][-_MOST_SNAPSHOTS:]

    def trend(
        self, number: int, basis: Float[np.ndarray, "d r"], covariance: Float[np.ndarray, "r r"]
    ) -> Trend | None:
        """What has moved since the middle of the run; None where that is not known."""
        earlier = [kept for kept in self._kept if 0 < kept[0] <= 0.7 * number]
        if number < _FEWEST_ROUNDS or not earlier:
            return None
        since, *old = min(earlier, key=lambda kept: abs(kept[0] - number / 2))
        change = prior_change((old[0], old[1]), (basis, covariance))
        return Trend("prior", since, 1.0, 1.0, change)


def error_trend(series: RoundSeries) -> Trend | None:
    """Of the median value error; None where it is not known in the middle of the run and now."""
    known = series.known("value_error")
    if len(known) < 3 or known[-1][0] < _FEWEST_ROUNDS:
        return None
    last, now = known[-1]
    since, then = min(known[:-1], key=lambda point: abs(point[0] - last / 2))
    return None if then <= 0.0 else Trend("value error", since, then, now, (then - now) / then)


def movement_trend(series: RoundSeries) -> Trend | None:
    """Of the basis: the mean movement of the newest quarter of the run against that of the quarter before."""
    known = series.known("movement")
    if len(known) < 8 or known[-1][0] < _FEWEST_ROUNDS:
        return None
    last = known[-1][0]
    quarters = (0.5 * last, 0.75 * last, last)
    before = [value for number, value in known if quarters[0] < number <= quarters[1]]
    newest = [value for number, value in known if quarters[1] < number]
    if not before or not newest:
        return None
    then, now = float(np.mean(before)), float(np.mean(newest))
    return None if then <= 0.0 else Trend("movement", int(quarters[1]), then, now, (then - now) / then)
