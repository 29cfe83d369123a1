"""The arithmetic of a round, with secure sums and without."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from private_runs import private
from runs import D, R, announced, specification

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.method import full_history, paper, practical
from cospan.core.secure_sums.fixed_point import encode
from cospan.core.secure_sums.layout import layout_of
from cospan.core.specification import RunSpecification
from cospan.server.machine.events import BasisComputed, ComputeBasis
from cospan.server.runtime.basis_arithmetic import computed_basis
from cospan.wire.messages import MaskedVector


def secure(**changes: Any) -> RunSpecification:
    return specification(**({"agents": 3, "secure_sums": True, "min_cohort": 3, "rounds": 0} | changes))


def contributions(spec: RunSpecification, number: int = 0) -> list[Contribution]:
    rng = np.random.default_rng(3)
    pooled = None
    if spec.sends_pooled_in(number):
        curvature = np.append(np.eye(D)[np.triu_indices(D)], 0.5)
        pooled = curvature if spec.method.has_head_covariance else np.linspace(0.5, 1.0, D)
    moment = np.eye(R) if spec.method.preconditioned else None
    return [
        Contribution(DenseMatrix(rng.standard_normal((D, R))), head_second_moment=moment, pooled=pooled)
        for _ in range(3)
    ]


def masked(spec: RunSpecification, plain: list[Contribution], number: int = 0) -> tuple[MaskedVector, ...]:
    """With masks of which each is the negative of the one before, and the last of none."""
    layout = layout_of(spec, number)
    mask = np.random.default_rng(1).integers(0, 2**63, layout.words, dtype=np.uint64)
    words = [encode(each, layout).words for each in plain]
    return tuple(MaskedVector(each, bytes(32), 1.0) for each in (words[0] + mask, words[1] - mask, words[2]))


def computed(spec: RunSpecification, vectors: Any, number: int = 0) -> BasisComputed:
    basis, covariance = announced(spec)
    found = computed_basis(ComputeBasis(number, basis, tuple(vectors), head_covariance=covariance), spec)
    assert isinstance(found, BasisComputed)
    return found


@pytest.mark.parametrize("method", [paper(3), full_history(3), practical(3)])
def test_the_move_is_that_of_the_contributions(method: Any) -> None:
    spec = secure(method=method)
    plain = contributions(spec)
    found = computed(spec, masked(spec, plain))
    assert not found.void_cause
    expected = computed(replace(spec, secure_sums=False, min_cohort=0), plain)
    np.testing.assert_allclose(found.move.basis, expected.move.basis, atol=1e-9)


def test_a_round_is_void_whose_masks_do_not_cancel() -> None:
    spec = secure()
    vectors = masked(spec, contributions(spec))
    found = computed(spec, vectors[:2] + vectors[:1])
    assert found.move.basis is found.move.before
    assert "the masks do not cancel" in found.void_cause
    assert computed(spec, (*vectors[:2], MaskedVector(vectors[2].words + np.uint64(1), bytes(32), 1.0))).void_cause


def test_a_round_is_void_whose_sum_cannot_be_one() -> None:
    spec = secure(method=full_history(3))
    plain = contributions(spec)
    negative = [replace(each, pooled=-each.pooled) for each in plain if each.pooled is not None]
    assert "negative" in computed(spec, masked(spec, negative)).void_cause


def test_a_round_is_void_whose_step_needs_what_no_earlier_one_has_pooled() -> None:
    spec = secure(method=full_history(3))
    number = next(t for t in range(20) if not spec.sends_pooled_in(t))
    found = computed(spec, masked(spec, contributions(spec, number), number), number)
    assert "no earlier round has pooled" in found.void_cause


@pytest.mark.parametrize("share", [-1.0, 0.0, 4.0])
def test_a_noisy_sum_is_repaired_before_it_is_judged(share: float) -> None:
    """Noise makes weights negative, or larger than the number of the agents; without repair the round is void."""
    spec = private(agents=3)
    plain = contributions(spec)
    noisy = [replace(each, pooled=np.append(each.pooled[:-1], share)) for each in plain if each.pooled is not None]
    found = computed(spec, masked(spec, noisy))
    assert not found.void_cause
    assert not np.array_equal(found.move.basis, found.move.before)
    silent = replace(spec, **dict.fromkeys((name for name in spec.as_dict() if name.startswith("dp_")), 0))
    assert computed(silent, masked(silent, noisy)).void_cause


def test_a_trial_leaves_the_basis_and_is_counted() -> None:
    improving = {"improve": 1, "evaluation_rounds": 2, "trial_rounds": 2, "explore": 0.1, "confidence": 0.9}
    spec = secure(method=practical(3), **improving)
    zeros = contributions(spec, 2)
    found = computed(spec, masked(spec, zeros, 2), 2)
    assert not found.void_cause
    assert found.move.basis is found.move.before
