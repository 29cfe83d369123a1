"""The arithmetic of a round; it always gives an event, without which the round would never close."""

import logging

import numpy as np

from cospan.core.aggregation.basis_update import BasisMove
from cospan.core.aggregation.fallback import sound_move
from cospan.core.specification import RunSpecification
from cospan.server.machine.events import BasisComputed, BasisFailed, ComputeBasis

log = logging.getLogger(__name__)


def computed_basis(command: ComputeBasis, specification: RunSpecification) -> BasisComputed | BasisFailed:
    """The next basis of the run, or the failure; raises nothing, and any thread may call it.

    A round of trial leaves the basis and all that belongs to it as they are, whatever its gradients.
    """
    schedule, basis = specification.schedule, command.basis
    if schedule.is_trial(command.round):
        stays = BasisMove(basis, basis, command.step_memory, head_covariance=command.head_covariance)
        return BasisComputed(command.round, stays)
    try:
        sound = sound_move(
            command.basis,
            command.contributions,
            specification.method,
            schedule.learning_round(command.round),
            command.step_memory,
            head_covariance=command.head_covariance,
        )
    except np.linalg.LinAlgError as failure:
        return BasisFailed(command.round, f"round {command.round} gave no finite basis: {failure}")
    except Exception as failure:
        log.exception("the arithmetic of round %d failed", command.round)
        return BasisFailed(command.round, f"round {command.round} gave no basis: {failure}")
    return BasisComputed(command.round, sound.move, sound.left_out, sound.problem)
