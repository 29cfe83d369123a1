"""What a round comes to whose arithmetic fails: to what it comes to without those who make it fail.

What a peer sends is checked when it comes, so this should never be needed. But a run must not end, nor stand still,
because of one unforeseen contribution.
"""

from collections.abc import Sequence
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


def sound_move(
    basis: Float[np.ndarray, "d r"],
    contributions: Sequence[Contribution],
    method: Method,
    round_number: int,
    row_squares: Float[np.ndarray, " d"] | None = None,
) -> FallbackMove:
    """`basis_update.next_basis`; where that fails, the same without the contributions on which it fails alone.

    Where it fails on none alone, or still fails without them, the basis stays as it is. It depends on its arguments
    alone, so that a restart comes to the same bits.

    Raises:
        numpy.linalg.LinAlgError: it fails on each of them alone: then the run's constants are to blame, not a peer.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is found and named
        return _sound_move(basis, contributions, method, round_number, row_squares)


def _sound_move(
    basis: Float[np.ndarray, "d r"],
    contributions: Sequence[Contribution],
    method: Method,
    round_number: int,
    row_squares: Float[np.ndarray, " d"] | None,
) -> FallbackMove:
    try:
        return FallbackMove(next_basis(basis, contributions, method, round_number, row_squares))
    except np.linalg.LinAlgError as failure:
        problem = str(failure)
        left_out = _failing(basis, contributions, method, round_number, row_squares)
        if len(left_out) == len(contributions):
            raise
    places = [place for place in range(len(contributions)) if place not in left_out]
    if left_out:
        sound = [contributions[place] for place in places]
        try:
            move = next_basis(basis, sound, method, round_number, row_squares)
            move = replace(move, outliers=tuple(places[index] for index in move.outliers))
            return FallbackMove(move, left_out, problem)
        except np.linalg.LinAlgError as failure:
            problem = str(failure)
    stays = BasisMove(basis, basis, row_squares)
    return FallbackMove(stays, tuple(range(len(contributions))), problem)


def _failing(
    basis: Float[np.ndarray, "d r"],
    contributions: Sequence[Contribution],
    method: Method,
    round_number: int,
    row_squares: Float[np.ndarray, " d"] | None,
) -> tuple[int, ...]:
    """The places of the contributions from which alone there is no next basis."""
    failing = []
    for place, contribution in enumerate(contributions):
        try:
            next_basis(basis, [contribution], method, round_number, row_squares)
        except np.linalg.LinAlgError:
            failing.append(place)
    return tuple(failing)
