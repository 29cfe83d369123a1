"""The next basis when the arithmetic of a round fails: without the contributions that make it fail.

Uploads are checked on arrival, so this should never be needed. But one unforeseen contribution must not end a run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import BasisMove, Contribution, next_basis
from cospan.core.method import Method


@dataclass(frozen=True, eq=False, slots=True)
class FallbackMove:
    """What a round came to.

    Attributes:
        move: what it did to the basis.
        left_out: the places of the contributions that it did without; all of them where the basis stays as it is.
        problem: why, in one sentence; empty where nothing was left out.
    """

    move: BasisMove
    left_out: tuple[int, ...] = ()
    problem: str = ""


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # what is not finite is found and named
def sound_move(
    basis: Float[np.ndarray, "d r"],
    contributions: Sequence[Contribution],
    method: Method,
    round_number: int,
    step_memory: Float[np.ndarray, " m"] | None = None,
    *,
    head_covariance: Float[np.ndarray, "r r"] | None = None,
) -> FallbackMove:
    """`basis_update.next_basis`; if it fails, the same without the contributions on which it fails alone.

    If it fails on none alone, or still fails without them, the basis stays as it is. The result depends on the
    arguments alone, so a restart gives the same bits.

    Raises:
        numpy.linalg.LinAlgError: it fails on each of them alone, so the run's constants are the cause, not a
            peer; never with posterior head updates, whose curvatures come from the peers.
    """

    def moved(chosen: Sequence[Contribution]) -> BasisMove:
        return next_basis(basis, chosen, method, round_number, step_memory, head_covariance=head_covariance)

    try:
        return FallbackMove(moved(contributions))
    except np.linalg.LinAlgError as failure:
        problem = str(failure)
        left_out = tuple(place for place, each in enumerate(contributions) if _fails(moved, each))
        if len(left_out) == len(contributions):
            if not method.has_head_covariance:
                raise
            # The step on the evidence fails on what peers send, an indefinite curvature, whatever the constants
            # are.
            stays = BasisMove(basis, basis, step_memory, head_covariance=head_covariance)
            return FallbackMove(stays, left_out, problem)
    places = [place for place in range(len(contributions)) if place not in left_out]
    if left_out:
        try:
            move = moved([contributions[place] for place in places])
            move = replace(move, outliers=tuple(places[index] for index in move.outliers))
            return FallbackMove(move, left_out, problem)
        except np.linalg.LinAlgError as failure:
            problem = str(failure)
    stays = BasisMove(basis, basis, step_memory, head_covariance=head_covariance)
    return FallbackMove(stays, tuple(range(len(contributions))), problem)


def _fails(moved: Callable[[Sequence[Contribution]], BasisMove], contribution: Contribution) -> bool:
    """Whether one contribution alone gives no next basis."""
    try:
        moved([contribution])
    except np.linalg.LinAlgError:
        return True
    return False
