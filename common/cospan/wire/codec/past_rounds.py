"""Codec of past rounds, for a process that was started again and learns them again."""

from cospan.core.aggregation.basis_update import head_covariance_problem
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire.codec.bounds import check_basis
from cospan.wire.codec.matrices import decode_shaped, encode_matrix
from cospan.wire.codec.messages import decode_head_covariance, encode_stamp, fill_head_covariance
from cospan.wire.errors import InvalidMessageError
from cospan.wire.messages import RecalledBasis, RecalledRounds, Stamp


def encode_recalled(stamp: Stamp, recalled: RecalledRounds) -> pb.RecallRoundsResponse:
    """Past rounds as a RecallRoundsResponse."""
    return pb.RecallRoundsResponse(
        stamp=encode_stamp(stamp),
        rounds=map(_encode_round, recalled.bases),
        next_round=recalled.next_round,
        lost_rounds=recalled.lost,
    )


def _encode_round(past: RecalledBasis) -> pb.RecalledRound:
    message = pb.RecalledRound(round=past.round, basis=encode_matrix(past.basis))
    fill_head_covariance(message, past.head_covariance)
    return message


def decode_recalled(
    message: pb.RecallRoundsResponse, spec: RunSpecification, *, from_round: int, before_round: int
) -> RecalledRounds:
    """Past rounds from the answer to a request for those from `from_round` on, below `before_round`.

    Raises:
        InvalidMessageError: a basis, or what comes with it, is not one of this run, or the rounds are not those
            that were asked for.
    """
    expected = from_round
    for each in message.rounds:
        if not expected <= each.round < before_round:
            raise InvalidMessageError(
                f"recalled.round is {each.round}; it must be {expected} to {before_round - 1}, in ascending order"
            )
        expected = each.round + 1
    if not expected <= message.next_round <= before_round or message.next_round == from_round < before_round:
        raise InvalidMessageError(
            f"recalled.next_round is {message.next_round}; it must be above {from_round}, at most {before_round}"
        )
    bases = tuple(_decode_round(each, spec) for each in message.rounds)
    return RecalledRounds(bases, message.next_round, message.lost_rounds)


def _decode_round(message: pb.RecalledRound, spec: RunSpecification) -> RecalledBasis:
    basis = decode_shaped(message.basis, "recalled.basis", spec.feature_dim, spec.rank)
    check_basis(basis, "recalled.basis")
    covariance = decode_head_covariance(message, "recalled.head_covariance", spec.rank)
    problem = head_covariance_problem(covariance, spec.method, spec.rank)
    if problem:
        raise InvalidMessageError(f"recalled.head_covariance: {problem}")
    return RecalledBasis(message.round, basis, covariance)
