"""Codec of past rounds, for a process that was started again and learns them again."""

from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire.codec.bounds import check_basis
from cospan.wire.codec.matrices import decode_shaped, encode_matrix
from cospan.wire.codec.messages import encode_stamp
from cospan.wire.errors import InvalidMessageError
from cospan.wire.messages import RecalledRounds, Stamp


def encode_recalled(stamp: Stamp, recalled: RecalledRounds) -> pb.RecallRoundsResponse:
    """Past rounds as a RecallRoundsResponse."""
    return pb.RecallRoundsResponse(
        stamp=encode_stamp(stamp),
        rounds=[pb.RecalledRound(round=number, basis=encode_matrix(basis)) for number, basis in recalled.bases],
        next_round=recalled.next_round,
        lost_rounds=recalled.lost,
    )


def decode_recalled(
    message: pb.RecallRoundsResponse, spec: RunSpecification, *, from_round: int, before_round: int
) -> RecalledRounds:
    """Past rounds from the answer to a request for those from `from_round` on, below `before_round`.

    Raises:
        InvalidMessageError: a basis has another shape than the run's, or the rounds are not those asked for.
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
    d, r = spec.feature_dim, spec.rank
    bases = tuple((each.round, decode_shaped(each.basis, "recalled.basis", d, r)) for each in message.rounds)
    for _, basis in bases:
        check_basis(basis, "recalled.basis")
    return RecalledRounds(bases, message.next_round, message.lost_rounds)
