"""Agents that only speak: their groups and their uploads."""

import pytest

from cospan.benchmarks.tools.load_generator import Upload, agents_of
from cospan.benchmarks.tools.processes import Case
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.method import paper
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire.codec.messages import decode_agent_message
from cospan.wire.messages import GradientUpload


def test_a_group_shares_a_stream() -> None:
    case = Case(10, 4, 2, group=4)
    assert case.streams == 3
    assert [list(agents_of(stream, 4, 10)) for stream in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 16_383, 16_384, 2**40])
def test_an_upload_is_what_an_agent_would_send(number: int) -> None:
    spec = RunSpecification("", 5, 2, agents=1, rounds=0, seed=0, method=paper(1))
    request = pb.CollaborateRequest.FromString(Upload(5, 2, 7).of_round(number))
    message = decode_agent_message(request, spec)
    assert isinstance(message, GradientUpload)
    assert (message.round, message.contribution.weight) == (number, 1.0)
    gradient = message.contribution.gradient
    assert isinstance(gradient, DenseMatrix)
    assert gradient.values.tobytes() == Upload(5, 2, 7).of_round(0)[-80:], "the ceiling reads it off the end"
