"""The arithmetic of a round; it always gives an event, without which the round would never close.

With secure sums the vectors are added first, and what follows is the arithmetic of one contribution of all agents.
With differential privacy the sum has noise, and is repaired before.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cospan.core.aggregation.basis_update import BasisMove, Contribution
from cospan.core.aggregation.fallback import FallbackMove, sound_move
from cospan.core.privacy.private_run import move_of, read_sum
from cospan.core.secure_sums.fixed_point import added, decode, sum_problem
from cospan.core.secure_sums.layout import layout_of
from cospan.core.specification import RunSpecification
from cospan.server.machine.events import BasisComputed, BasisFailed, ComputeBasis
from cospan.wire.codec.bounds import check_contribution
from cospan.wire.errors import InvalidMessageError
from cospan.wire.messages import MaskedVector

log = logging.getLogger(__name__)


def computed_basis(command: ComputeBasis, specification: RunSpecification) -> BasisComputed | BasisFailed:
    """The next basis of the run, or the failure; raises nothing, and any thread may call it.

    A round of trial leaves the basis and all that belongs to it as they are, whatever its gradients.
    """
    basis = command.basis
    stays = BasisMove(basis, basis, command.step_memory, head_covariance=command.head_covariance)
    if specification.secure_sums:
        return _of_sum(command, specification, stays)
    if specification.schedule.is_trial(command.round):
        return BasisComputed(command.round, stays)
    contributions = [each for each in command.contributions if isinstance(each, Contribution)]
    try:
        sound = _moved(command, contributions, specification)
    except np.linalg.LinAlgError as failure:
        return BasisFailed(command.round, f"round {command.round} gave no finite basis: {failure}")
    except Exception as failure:
        log.exception("the arithmetic of round %d failed", command.round)
        return BasisFailed(command.round, f"round {command.round} gave no basis: {failure}")
    return BasisComputed(command.round, sound.move, sound.left_out, sound.problem)


def _moved(
    command: ComputeBasis, contributions: Sequence[Contribution], specification: RunSpecification
) -> FallbackMove:
    """What the contributions do to the basis; raises as `sound_move` does."""
    return sound_move(
        command.basis,
        contributions,
        specification.method,
        specification.schedule.learning_round(command.round),
        command.step_memory,
        head_covariance=command.head_covariance,
    )


def _of_sum(command: ComputeBasis, specification: RunSpecification, stays: BasisMove) -> BasisComputed:
    """The next basis from the sum of masked vectors.

    A sum that is none, or that the arithmetic fails with, makes the round void: the sum does not show whose vector
    is the cause, so the run continues.
    """
    try:
        summed = sum_of_vectors(command, specification)
        if specification.schedule.is_trial(command.round):
            return BasisComputed(command.round, stays)
        if summed.pooled is None and command.step_memory is None and specification.method.sends_pooled:
            return BasisComputed(command.round, stays, void_cause="no earlier round has pooled what its step needs")
        sound = _moved(command, [summed], specification)
    except (np.linalg.LinAlgError, InvalidMessageError) as failure:
        return BasisComputed(command.round, stays, void_cause=f"the sum gives no basis: {failure}")
    except Exception as failure:
        log.exception("the arithmetic of round %d failed", command.round)
        return BasisComputed(command.round, stays, void_cause=f"the sum gives no basis: {failure}")
    if sound.left_out:
        return BasisComputed(command.round, stays, void_cause=f"the sum gives no basis: {sound.problem}")
    return BasisComputed(command.round, move_of(sound.move, summed.weight, specification, command.round))


def sum_of_vectors(command: ComputeBasis, specification: RunSpecification) -> Contribution:
    """With secure sums: the contribution of all members.

    Raises:
        InvalidMessageError: the masks do not cancel, or the sum cannot be one.
    """
    vectors = [each for each in command.contributions if isinstance(each, MaskedVector)]
    layout = layout_of(specification, command.round)
    total = added(each.words for each in vectors)
    problem = sum_problem(total, layout, int(sum(each.weight for each in vectors)))
    if problem:
        raise InvalidMessageError(problem)
    method = specification.method
    summed = read_sum(decode(total, layout), specification, command.round)
    # Rounding may leave a second moment that is just not semidefinite, so it is not judged.
    check_contribution(
        replace(summed, head_second_moment=None),
        pooled_is_nonnegative=method.pooled_is_nonnegative,
        pools_weight=method.has_head_covariance,
    )
    return summed
