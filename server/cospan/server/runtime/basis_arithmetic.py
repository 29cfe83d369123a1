"""The arithmetic of a round; it always gives an event, without which the round would never close."""

import logging

import numpy as np

from cospan.core.aggregation.fallback import sound_move
from cospan.core.method import Method
from cospan.server.machine.events import BasisComputed, BasisFailed, ComputeBasis

log = logging.getLogger(__name__)


def computed_basis(command: ComputeBasis, method: Method) -> BasisComputed | BasisFailed:
    """The next basis of the run, or the failure; raises nothing, and any thread may call it."""
    try:
        sound = sound_move(
            command.basis,
            command.contributions,
            method,
            command.round,
            command.step_memory,
            head_covariance=command.head_covariance,
        )
    except np.linalg.LinAlgError as failure:
        return BasisFailed(command.round, f"round {command.round} gave no finite basis: {failure}")
    except Exception as failure:
        log.exception("the arithmetic of round %d failed", command.round)
        return BasisFailed(command.round, f"round {command.round} gave no basis: {failure}")
    return BasisComputed(command.round, sound.move, sound.left_out, sound.problem)
