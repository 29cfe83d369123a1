"""The bounds of what the coordinator takes from its peers: arithmetic is finite within them."""

import dataclasses
import itertools

import numpy as np
import pytest

from cospan.core.aggregation.basis_update import Contribution, next_basis
from cospan.core.aggregation.evidence_step import packed
from cospan.core.aggregation.fallback import sound_move
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix
from cospan.core.linalg.subspace import is_second_moment, random_basis
from cospan.core.method import PRESETS, practical
from cospan.wire.codec.bounds import MAX_ENTRY, check_contribution, is_within
from cospan.wire.errors import InvalidMessageError

D, R = 6, 3
RNG = np.random.default_rng(5)
SIGNS = np.where(RNG.random((D, R)) < 0.5, -1.0, 1.0)
SIZES = (0.0, 5e-324, 1e-61, MAX_ENTRY)
BASIS = random_basis(D, R, RNG)


def moment(size: float, rank: int = R) -> np.ndarray:
    """A second moment of a rank from 0 to R, whose largest entry is about `size`."""
    heads = np.eye(R)[:, :rank] if rank else np.zeros((R, 1))
    return np.asarray(size * (heads @ heads.T))


def extreme(gradient: float, second_moment: float, row_sum: float, rank: int = R) -> Contribution:
    rows = np.full(D, row_sum)
    rows[0] = 0.0
    return Contribution(DenseMatrix(gradient * SIGNS), 1.0, moment(second_moment, rank), rows)


@pytest.mark.parametrize("preset", ["paper", "compact", "full-history"])
@pytest.mark.parametrize("rank", [1, R])
def test_the_arithmetic_is_finite_at_the_ends_of_all_ranges(preset: str, rank: int) -> None:
    """Two rounds each, for the row-scaled step remembers squares; numpy's warnings are errors here."""
    method = PRESETS[preset](5)
    with np.errstate(over="raise", invalid="raise"):
        for sizes in itertools.product(SIZES, repeat=3):
            huge, small = extreme(*sizes, rank), extreme(1.0, 1.0, 1.0)
            check_contribution(huge)
            for contributions in ([huge], [small, huge]):
                basis, step_memory = BASIS, None
                for number in range(2):
                    move = next_basis(basis, contributions, method, number, step_memory)
                    basis, step_memory = move.basis, move.step_memory
                assert np.isfinite(basis).all()
                assert move.orthonormality_error < 1e-12


@pytest.mark.parametrize("of_all", [False, True])
def test_a_posterior_step_at_the_ends_of_all_ranges_is_finite_or_named(of_all: bool) -> None:
    """A contribution that makes it fail is left out; where all do, that is an error, never a basis that is none."""
    method, named = practical(5), 0
    for size, curvature, prior in itertools.product(SIZES, (0.0, 1e-61, MAX_ENTRY), (1e-9, 1.0, MAX_ENTRY)):
        huge = Contribution(DenseMatrix(size * SIGNS), 1.0, None, np.append(curvature * packed(np.eye(D)), 1.0))
        small = Contribution(DenseMatrix(0.1 * SIGNS), 1.0, None, np.append(packed(np.eye(D)), 1.0))
        check_contribution(huge)
        try:
            found = sound_move(
                BASIS, [huge] if of_all else [small, huge], method, 0, head_covariance=prior * np.eye(R)
            )
        except np.linalg.LinAlgError:
            named += 1
            continue
        assert np.isfinite(found.move.basis).all()
        assert found.move.orthonormality_error < 1e-12
        assert found.move.head_covariance is not None
        assert np.linalg.eigvalsh(found.move.head_covariance)[0] >= 0.0
    assert named <= of_all, "only where all is as large as it may be, and there is no other agent"


@pytest.mark.parametrize("factors", [1, R])
def test_what_counts_of_factors_is_their_product(factors: int) -> None:
    left, right = np.full((D, factors), 1e300), np.full((R, factors), 0.9e-240 / factors)
    check_contribution(Contribution(FactoredMatrix(left, right)))
    with pytest.raises(InvalidMessageError, match=r"the product of gradient\.factored"):
        check_contribution(Contribution(FactoredMatrix(left, right * 2.0)))
    single = FactoredMatrix(np.full((D, 1), 3e38, np.float32), np.full((R, 1), 3e38, np.float32))
    with pytest.raises(InvalidMessageError, match=r"up to 9e\+76"):
        check_contribution(Contribution(single))


def test_row_sums_have_a_bound_too() -> None:
    with pytest.raises(InvalidMessageError, match="pooled has an entry of up to 1e"):
        check_contribution(Contribution(DenseMatrix(SIGNS), pooled=np.full(D, 1e61)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("agents", [1, 2, 40])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e15])
def test_second_moments_of_honest_heads_pass(dtype: type, agents: int, size: float) -> None:
    """Also in float32, and with heads whose directions are of very unequal length."""
    for rank in (1, 2, 8, 64):
        heads = (
            size * np.random.default_rng(rank).standard_normal((rank, agents)) * np.logspace(0, -9, rank)[:, None]
        )
        second = sum((np.outer(head, head).astype(dtype) for head in heads.T), np.zeros((rank, rank), dtype))
        assert is_second_moment(second)
    assert is_second_moment(np.zeros((3, 3), dtype))


@pytest.mark.parametrize(
    "matrix",
    [
        [[-1.0]],
        [[-1e-70]],
        [[0.0, 1e-30], [1e-30, 0.0]],
        [[1.0, 0.0], [0.0, -0.01]],
        [[1.0, 1e-3], [0.0, 1.0]],
        [[1.0, 1e50], [1e50, 1.0]],
    ],
)
def test_what_is_no_second_moment_is_told(matrix: list[list[float]]) -> None:
    assert not is_second_moment(np.array(matrix))


# Left out all the same ------------------------------------------------------------------------------------------


def test_a_sum_may_be_as_large_as_what_it_sums() -> None:
    """Else one agent behind a relay, within its own bound, could make the relay's upload be refused."""
    at_the_end = Contribution(
        DenseMatrix(3.0 * MAX_ENTRY * SIGNS), 3.0, moment(3.0 * MAX_ENTRY), np.full(D, MAX_ENTRY)
    )
    check_contribution(at_the_end)
    with pytest.raises(InvalidMessageError, match=r"at most 3e\+60 is taken"):
        check_contribution(dataclasses.replace(at_the_end, gradient=DenseMatrix(3.1 * MAX_ENTRY * SIGNS)))
    with pytest.raises(InvalidMessageError, match="at most 6"):
        check_contribution(Contribution(DenseMatrix(1e80 * SIGNS), 1e300))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("most", [1.0, 1e30, MAX_ENTRY])
@pytest.mark.parametrize("share", [0.0, 1e-30, 0.4, 0.5, 0.999, 1.0, 1.001, 2.0, np.inf, np.nan])
def test_whether_all_entries_are_within_a_bound(dtype: type, most: float, share: float) -> None:
    """The quick way says what the plain one does, also where a sum of squares overflows or is not a number."""
    values = np.zeros((D, R), dtype=dtype)
    for sign in (1.0, -1.0):
        with np.errstate(over="ignore"):
            values[2, 1] = sign * share * most
        exact = bool((np.abs(values.astype(np.float64)) <= most).all())
        assert is_within(values, most) is exact
        assert is_within(np.asfortranarray(values), most) is exact


@pytest.mark.parametrize("weight", [0.0, -0.5, 2.1, 1e30])
def test_a_weight_in_the_step_is_above_0_and_at_most_1_an_agent(weight: float) -> None:
    """One agent must not outweigh all others by what it says of itself."""
    pooled = np.append(packed(np.eye(D)), weight)
    with pytest.raises(InvalidMessageError, match="the weight of 2 agents in the step is above 0 and at most 2"):
        check_contribution(
            Contribution(DenseMatrix(SIGNS), 2.0, None, pooled), pooled_is_nonnegative=False, pools_weight=True
        )
    pooled[-1] = 2.0
    check_contribution(
        Contribution(DenseMatrix(SIGNS), 2.0, None, pooled), pooled_is_nonnegative=False, pools_weight=True
    )
