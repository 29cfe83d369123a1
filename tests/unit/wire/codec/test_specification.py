"""Specifications on the wire: every field travels, and what none may say is refused."""

import dataclasses
import math
from typing import Any

import pytest
from codec_examples import METHOD, SPEC, Change, refused, sent, set_to
from private_runs import private

from cospan.core.method import Aggregation, Method, practical
from cospan.core.privacy.promise import OF_PRIVACY
from cospan.core.run_fields import IMPROVEMENT_DEFAULTS, Participation
from cospan.core.specification import RunSpecification
from cospan.wire.codec.specification import decode_specification, encode_specification
from cospan.wire.errors import InvalidMessageError

# There and back -------------------------------------------------------------------------------------------------


def test_specifications_come_back() -> None:
    back = decode_specification(sent(encode_specification(SPEC)))
    assert back == SPEC
    assert back.digest() == SPEC.digest()
    assert back.method.head_radius == math.inf


def test_every_field_of_a_specification_travels() -> None:
    """A field that were left out would come back as its default: none has that value here."""
    for kind, value in ((RunSpecification, SPEC), (Method, METHOD)):
        for field in dataclasses.fields(kind):
            if field.name not in {"improve", "secure_sums", "min_cohort", *IMPROVEMENT_DEFAULTS, *OF_PRIVACY}:
                assert getattr(value, field.name) != field.default, field.name


def test_improvement_travels() -> None:
    waiting = {"participation": Participation.ALL, "quorum": 0.0, "deadline_seconds": 0.0, "max_staleness": 0}
    changes: dict[str, Any] = {"method": practical(5), "rounds": 0, "improve": 3, **waiting, **IMPROVEMENT_DEFAULTS}
    improving = dataclasses.replace(SPEC, **changes)
    assert decode_specification(sent(encode_specification(improving))) == improving


def test_secure_sums_travel() -> None:
    method = dataclasses.replace(METHOD, warm_up_rounds=0, aggregation=Aggregation.MEAN)
    waiting = {"participation": Participation.ALL, "quorum": 0.0, "deadline_seconds": 0.0, "max_staleness": 0}
    secure = dataclasses.replace(SPEC, method=method, secure_sums=True, min_cohort=2, **waiting)
    assert decode_specification(sent(encode_specification(secure))) == secure


def test_differential_privacy_travels_and_a_broken_promise_does_not() -> None:
    assert decode_specification(sent(encode_specification(private()))) == private()
    with pytest.raises(InvalidMessageError, match="vectors with it cost ε"):
        decode_specification(sent(encode_specification(private(dp_noise_multiplier=1.0))))


# What a specification may not say -------------------------------------------------------------------------------


SPECIFICATION_CHANGES: dict[str, tuple[str, Change]] = {
    "no schedule": ("method.head_update is 0", set_to("method.head_update", 0)),
    "unknown schedule": ("method.head_update is 7", set_to("method.head_update", 7)),
    "no policy": ("participation is 0", set_to("participation", 0)),
    "unknown policy": ("participation is 99", set_to("participation", 99)),
    "long workload": ("workload has 257 characters", set_to("workload", "x" * 257)),
    "long fingerprint": ("feature_fingerprint has 257 characters", set_to("feature_fingerprint", "x" * 257)),
    "no rank": ("rank is 0", set_to("rank", 0)),
    "rank above d": ("rank is 4", set_to("rank", 4)),
    "huge d": ("feature_dim is 4294967295", set_to("feature_dim", 2**32 - 1)),
    "no agents": ("agents is 0", set_to("agents", 0)),
    "huge seed": (f"seed is {2**64 - 1}", set_to("seed", 2**64 - 1)),
    "huge rounds": (f"rounds is {2**63}", set_to("rounds", 2**63)),
    "no session timeout": ("session_timeout_seconds is 0.0", set_to("session_timeout_seconds", 0.0)),
    "endless round": ("round_timeout_seconds is inf", set_to("round_timeout_seconds", math.inf)),
    "no steps": ("steps_per_round is 0", set_to("method.steps_per_round", 0)),
    "head step": ("head_step is nan", set_to("method.head_step", math.nan)),
    "gain step": ("gain_step is 1.5", set_to("method.gain_step", 1.5)),
    "head radius": ("head_radius is -inf", set_to("method.head_radius", -math.inf)),
    "basis step": ("basis_step is inf", set_to("method.basis_step", math.inf)),
    "floor": ("preconditioner_floor is 0.0", set_to("method.preconditioner_floor", 0.0)),
    "horizon": ("decay_horizon is -1.0", set_to("method.decay_horizon", -1.0)),
    "power": ("decay_power is 2.0", set_to("method.decay_power", 2.0)),
    "short warm-up": ("warm_up_rounds is 1; it must be 0, or 2 to 2^32 − 1", set_to("method.warm_up_rounds", 1)),
    "long warm-up": ("warm_up_rounds is 10", set_to("method.warm_up_rounds", 10)),
}


@pytest.mark.parametrize("name", SPECIFICATION_CHANGES)
def test_a_malformed_specification_is_refused(name: str) -> None:
    expected, change = SPECIFICATION_CHANGES[name]
    message = encode_specification(SPEC)
    change(message)
    with pytest.raises(InvalidMessageError) as error:
        decode_specification(sent(message))
    assert refused(error).startswith(expected)


def test_all_that_is_wrong_is_said_at_once() -> None:
    message = encode_specification(SPEC)
    message.rank, message.agents = 0, 0
    message.method.gain_step = -1.0
    with pytest.raises(InvalidMessageError) as error:
        decode_specification(message)
    text = refused(error)
    assert all(f"{name} is " in text for name in ("rank", "agents", "gain_step"))
