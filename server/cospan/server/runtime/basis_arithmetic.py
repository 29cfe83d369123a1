"""The arithmetic of a round; it always gives an event, without which the round would never close."""

import logging
from dataclasses import replace

import numpy as np

from cospan.core.aggregation.fallback import sound_move
from cospan.core.method import Method
from cospan.server.machine.events import BasisComputed, BasisFailed, ComputeBasis

log = logging.getLogger(__name__)


def computed_basis(command: ComputeBasis, method: Method) -> BasisComputed | BasisFailed:
    """The next basis of the run, or the failure; raises nothing, and any thread may call it.

    A head covariance that the round does not change stays as it is.
    """
    try:
        sound = sound_move(command.basis, command.contributions, method, command.round, command.step_memory)
    except np.linalg.LinAlgError as failure:
        return BasisFailed(command.round, f"round {command.round} gave no finite basis: {failure}")
    except Exception as failure:
        log.exception("the arithmetic of round %d failed", command.round)
        return BasisFailed(command.round, f"round {command.round} gave no basis: {failure}")
    move = sound.move
    if move.head_covariance is None and command.head_covariance is not None:
        move = replace(move, head_covariance=command.head_covariance)
    return BasisComputed(command.round, move, sound.left_out, sound.problem)
