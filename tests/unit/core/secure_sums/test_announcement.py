"""What members of a round agree on: every difference in it makes another digest."""

from dataclasses import replace

import numpy as np

from cospan.core.method import HeadUpdate, practical
from cospan.core.secure_sums.announcement import announcement_digest, specification_digest
from cospan.core.specification import RunSpecification

SPEC = RunSpecification(workload="ring", feature_dim=4, rank=2, agents=3, rounds=10, seed=7, method=practical(5))
BASIS = np.linalg.qr(np.arange(8.0).reshape(4, 2) ** 2)[0]
FIXED = np.arange(8.0).reshape(4, 2)


def test_every_part_of_an_announcement_counts() -> None:
    spec = specification_digest(SPEC)
    changed = BASIS.copy()
    changed[3, 1] = np.nextafter(changed[3, 1], 1.0)
    digests = [
        announcement_digest(spec, 1, BASIS, np.eye(2)),
        announcement_digest(bytes(32), 1, BASIS, np.eye(2)),
        announcement_digest(spec, 2, BASIS, np.eye(2)),
        announcement_digest(spec, 1, changed, np.eye(2)),
        announcement_digest(spec, 1, BASIS, 2.0 * np.eye(2)),
        announcement_digest(spec, 1, BASIS),
    ]
    assert len(set(digests)) == len(digests)
    assert announcement_digest(spec, 1, np.asfortranarray(BASIS), np.eye(2)) == digests[0]


def test_every_field_of_the_specification_counts() -> None:
    changed = [
        SPEC,
        replace(SPEC, seed=8),
        replace(SPEC, improve=1, evaluation_rounds=2, trial_rounds=1, explore=0.1, confidence=0.95),
        replace(SPEC, method=replace(SPEC.method, steps_per_round=6)),
        replace(SPEC, method=replace(SPEC.method, head_update=HeadUpdate.LEAST_SQUARES)),
        replace(SPEC, method=replace(SPEC.method, basis_step=0.25)),
        replace(SPEC, workload="rin", feature_fingerprint="g"),
    ]
    assert len({specification_digest(spec) for spec in changed}) == len(changed)


def test_fields_that_are_zero_do_not_count() -> None:
    """So a peer that does not know a field computes the same where the run does not use it."""
    assert specification_digest(SPEC) == specification_digest(replace(SPEC, deadline_seconds=0.0))
    assert specification_digest(replace(SPEC, session_timeout_seconds=5)) == specification_digest(SPEC)


def test_digests_stay_the_same() -> None:
    """Members of another make have to compute them."""
    assert specification_digest(SPEC).hex() == "8cdbfd2d91b0ca5ca9d1514e71c73c1d8e22e78a954f8f9277ac2c192c8b9b74"
    assert (
        announcement_digest(bytes(range(32)), 3, FIXED).hex()
        == "332d48da8a3731a8c298c51c3a1aaa8931041331b74bc11b8eb0307c51a371c6"
    )
    assert (
        announcement_digest(bytes(range(32)), 3, FIXED, np.eye(2)).hex()
        == "0a453eb1a6a41d9bd9b12d8734dbaf6ea9937759222c138f461d91f062af86b6"
    )
