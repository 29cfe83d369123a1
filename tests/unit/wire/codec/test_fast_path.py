"""What some methods add to messages: numbers pooled beside the gradient, and a head covariance."""

import dataclasses

import numpy as np
import pytest
from codec_examples import BASIS, FACTORED, MOMENT, ROW_SCALED, SPEC, STAMP, WITH_ROW_SUMS, R
from values import same

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import FactoredMatrix
from cospan.core.method import Method
from cospan.wire import limits
from cospan.wire import messages as m
from cospan.wire.codec.fast_path import MessageLayout
from cospan.wire.codec.messages import (
    decode_agent_message,
    decode_coordinator_message,
    encode_agent_message,
    encode_coordinator_message,
)
from cospan.wire.errors import InvalidMessageError


def with_curvature(monkeypatch: pytest.MonkeyPatch) -> None:
    """The methods of this test pool d(d+1)/2 numbers of either sign, and have a head covariance."""
    monkeypatch.setattr(Method, "pooled_length", lambda _, d: d * (d + 1) // 2)
    monkeypatch.setattr(Method, "pooled_is_nonnegative", False)
    monkeypatch.setattr(Method, "has_head_covariance", True)


PACKED = np.array([1.0, -0.5, 0.25, 2.0, 0.0, 3.0])
LATER = dataclasses.replace(WITH_ROW_SUMS, round=5)


@pytest.mark.parametrize("pooled", [PACKED, PACKED + 1e-12], ids=["float32", "float64"])
def test_packed_numbers_come_back_in_the_fewest_bytes(pooled: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    with_curvature(monkeypatch)
    uploads = [
        dataclasses.replace(each, contribution=Contribution(FACTORED, 3.0, MOMENT, pooled))
        for each in (WITH_ROW_SUMS, LATER)
    ]
    requests = [encode_agent_message(each) for each in uploads]
    assert len(requests[0].gradient.pooled.data) == len(pooled) * (4 if pooled is PACKED else 8)
    assert all(same(decode_agent_message(r, ROW_SCALED), u) for r, u in zip(requests, uploads, strict=True))
    layout = MessageLayout.of(requests[0].SerializeToString(), uploads[0], ROW_SCALED)
    assert layout is not None
    assert same(layout.read(requests[1].SerializeToString()), uploads[1])


def test_packed_numbers_of_another_length_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with_curvature(monkeypatch)
    with pytest.raises(InvalidMessageError, match=r"gradient\.pooled is 3 × 1; this run needs 6 × 1"):
        decode_agent_message(encode_agent_message(WITH_ROW_SUMS), ROW_SCALED)


def test_packed_numbers_fit_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with_curvature(monkeypatch)
    spec = dataclasses.replace(SPEC, feature_dim=600)
    pooled = np.full(spec.pooled_length, 1.0 + 1e-12)
    gradient = FactoredMatrix(np.ones((600, R)), np.ones((R, R)))
    request = encode_agent_message(m.GradientUpload(4, Contribution(gradient, 1.0, MOMENT, pooled)))
    assert request.ByteSize() > limits.max_message_bytes(600, R)
    assert request.ByteSize() < limits.max_message_bytes(600, R, pooled=spec.pooled_length)


def test_a_welcome_says_the_head_covariance_of_a_method_that_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with_curvature(monkeypatch)
    welcome = m.Welcome(STAMP, "token", SPEC, BASIS, 5, started=True, head_covariance=np.eye(R))
    response = encode_coordinator_message(welcome)
    assert same(decode_coordinator_message(response), welcome)
    response.welcome.ClearField("head_covariance")
    with pytest.raises(InvalidMessageError, match=r"welcome\.head_covariance: the head covariance is missing"):
        decode_coordinator_message(response)
