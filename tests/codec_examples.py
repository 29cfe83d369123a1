"""Messages that tests of the codec encode, and how they change them into malformed ones."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import FactoredMatrix
from cospan.core.method import Aggregation, HeadUpdate, Method
from cospan.core.run_fields import Participation
from cospan.core.specification import RunSpecification
from cospan.rpc.v1 import matrix_pb2
from cospan.wire import messages as m
from cospan.wire.codec.matrices import encode_matrix
from cospan.wire.errors import InvalidMessageError

D, R = 3, 2
METHOD = Method(
    steps_per_round=5,
    head_update=HeadUpdate.EVERY_STEP,
    head_step=0.1,
    gain_step=0.2,
    head_radius=math.inf,
    basis_step=0.5,
    implicit_head_step=True,
    preconditioned=True,
    preconditioner_floor=0.06,
    decay_horizon=100.0,
    decay_power=0.7,
    trace_decay=0.75,
    forgetting=3.5,
    row_scaled=True,
    reward_scaled=True,
    explained_power=1.5,
    warm_up_rounds=4,
    aggregation=Aggregation.TRIMMED,
    trimmed_share=0.125,
    clip_norm=2.5,
    largest_turn=12.5,
    first_turn=45.0,
    refresh_growth=1.5,
    refresh_sample=500,
)
SPEC = RunSpecification(
    workload="synthetic",
    feature_dim=D,
    rank=R,
    agents=3,
    rounds=10,
    seed=2**63 - 1,
    method=METHOD,
    feature_fingerprint="tabular-0123",
    session_timeout_seconds=4.5,
    round_timeout_seconds=61.0,
    participation=Participation.QUORUM,
    quorum=0.75,
    deadline_seconds=1.5,
    max_staleness=2,
    min_agents=2,
)
BASIS = np.linspace(-1.0, 1.0, D * R).reshape(D, R)
MOMENT = np.array([[2.0, -1.0], [-1.0, 3.0]])
STAMP = m.Stamp(run_id="run-1", incarnation=2, round=2**63 - 1, durable_round=7)
JOIN = m.Join(
    instance_id="instance",
    agent_ids=("a", "b-2", "c.3"),
    feature_dim=D,
    feature_fingerprint="tabular-0123",
    workload="synthetic",
    client_version="0.1.0",
    resumption=m.Resumption(session_token="token", run_id="run-1", last_round=9),
)
FACTORED = FactoredMatrix(left=np.ones((D, 1)), right=np.full((R, 1), -0.0))
ROW_SCALED = dataclasses.replace(SPEC, method=dataclasses.replace(METHOD, head_update=HeadUpdate.FULL_HISTORY))
WITH_ROW_SUMS = m.GradientUpload(4, Contribution(FACTORED, 3.0, MOMENT, pooled=np.array([0.0, 1.5, 2.0])))


def upload(gradient: Any, moment: Any = MOMENT, **changes: Any) -> m.GradientUpload:
    contribution = Contribution(gradient=gradient, weight=3.0, head_second_moment=moment)
    return m.GradientUpload(**({"round": 4, "contribution": contribution, "agent_ids": ("a", "b-2")} | changes))


def sent(message: Any) -> Any:
    """A protobuf message after a trip over the wire."""
    return type(message).FromString(message.SerializeToString())


Change = Callable[[Any], object]


def matrix(values: Any, **changes: Any) -> matrix_pb2.Matrix:
    message = encode_matrix(np.array(values, dtype=np.float64))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def set_to(path: str, value: Any) -> Change:
    """Sets the field at a dotted path."""

    def change(message: Any) -> None:
        *parents, last = path.split(".")
        for name in parents:
            message = getattr(message, name)
        field = getattr(message, last)
        if isinstance(value, list):
            del field[:]
            field.extend(value)
        elif hasattr(value, "DESCRIPTOR"):
            field.CopyFrom(value)
        else:
            setattr(message, last, value)

    return change


def refused(error: pytest.ExceptionInfo[InvalidMessageError]) -> str:
    """The sentence, which must be one that a status has room for."""
    text = str(error.value)
    assert type(error.value) is InvalidMessageError
    assert 0 < len(text) < 1000
    assert "\n" not in text
    return text
