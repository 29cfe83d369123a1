"""Past rounds on the wire."""

import numpy as np
import pytest
from runs import D, R, specification
from stored import RUN_ID, basis_after
from values import same

from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire.codec.past_rounds import decode_recalled, encode_recalled
from cospan.wire.errors import InvalidMessageError
from cospan.wire.messages import RecalledRounds, Stamp


def test_what_is_recalled_arrives_as_it_was() -> None:
    spec = specification()
    sent = RecalledRounds(tuple((number, basis_after(number)) for number in (3, 5)), 6)
    message = encode_recalled(Stamp(RUN_ID, 1, 9, 9), sent)
    found = decode_recalled(message, spec, from_round=3, before_round=9)
    assert [number for number, _ in found.bases] == [3, 5]
    assert all(same(basis, basis_after(number)) for number, basis in found.bases)
    assert (found.next_round, found.lost) == (6, 0)


@pytest.mark.parametrize(
    ("rounds", "next_round", "shape", "says"),
    [
        ([2], 6, (D, R), "it must be 3 to 8"),
        ([4, 4], 6, (D, R), "it must be 5 to 8"),
        ([9], 9, (D, R), "it must be 3 to 8"),
        ([3], 3, (D, R), "next_round is 3"),
        ([], 3, (D, R), "next_round is 3"),
        ([3], 10, (D, R), "at most 9"),
        ([3], 6, (D, R + 1), "this run needs 4 × 2"),
    ],
)
def test_an_answer_that_is_none_is_refused(
    rounds: list[int], next_round: int, shape: tuple[int, int], says: str
) -> None:
    bases = tuple((number, np.eye(*shape)) for number in rounds)
    message = encode_recalled(Stamp(RUN_ID, 1, 9, 9), RecalledRounds(bases, next_round))
    with pytest.raises(InvalidMessageError, match=says):
        decode_recalled(message, specification(), from_round=3, before_round=9)


def test_an_old_coordinators_heartbeat_says_nothing() -> None:
    assert pb.CollaborateRequest(heartbeat=pb.Heartbeat()).heartbeat.saved_rounds == 0
