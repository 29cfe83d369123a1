"""Past rounds on the wire."""

import numpy as np
import pytest
from runs import D, R, specification
from stored import RUN_ID, basis_after
from values import same

from cospan.core.method import Method
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire.codec.past_rounds import decode_recalled, encode_recalled
from cospan.wire.errors import InvalidMessageError
from cospan.wire.messages import RecalledBasis, RecalledRounds, Stamp


def test_what_is_recalled_arrives_as_it_was() -> None:
    spec = specification()
    sent = RecalledRounds(tuple(RecalledBasis(number, basis_after(number)) for number in (3, 5)), 6)
    message = encode_recalled(Stamp(RUN_ID, 1, 9, 9), sent)
    found = decode_recalled(message, spec, from_round=3, before_round=9)
    assert [number for number, *_ in found.bases] == [3, 5]
    assert all(same(basis, basis_after(number)) for number, basis, _ in found.bases)
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
    bases = tuple(RecalledBasis(number, np.eye(*shape)) for number in rounds)
    message = encode_recalled(Stamp(RUN_ID, 1, 9, 9), RecalledRounds(bases, next_round))
    with pytest.raises(InvalidMessageError, match=says):
        decode_recalled(message, specification(), from_round=3, before_round=9)


def test_an_old_coordinators_heartbeat_says_nothing() -> None:
    assert pb.CollaborateRequest(heartbeat=pb.Heartbeat()).heartbeat.saved_rounds == 0


def test_head_covariances_are_recalled_with_their_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    covariance = np.diag([2.0, 0.5])
    sent = RecalledRounds((RecalledBasis(3, basis_after(3), covariance),), 4)
    message = encode_recalled(Stamp(RUN_ID, 1, 9, 9), sent)
    with pytest.raises(InvalidMessageError, match=r"recalled\.head_covariance: a head covariance came"):
        decode_recalled(message, specification(), from_round=3, before_round=9)
    monkeypatch.setattr(Method, "has_head_covariance", True)
    assert same(decode_recalled(message, specification(), from_round=3, before_round=9), sent)
    message.rounds[0].ClearField("head_covariance")
    with pytest.raises(InvalidMessageError, match=r"recalled\.head_covariance: the head covariance is missing"):
        decode_recalled(message, specification(), from_round=3, before_round=9)
