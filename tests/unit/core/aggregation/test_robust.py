"""Robust aggregation: by hand, by brute force, and against agents that are not honest."""

import dataclasses
import itertools

import numpy as np
import pytest
from values import read_only

from cospan.core.aggregation.basis_update import Contribution, aggregate, next_basis
from cospan.core.aggregation.robust import (
    Parts,
    clipped_mean,
    geometric_median,
    outliers_of,
    trimmed_mean,
    weighted_median,
)
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, Gradient, to_dense
from cospan.core.linalg.matrix_batch import DenseStack, FactoredStack, stacked
from cospan.core.linalg.subspace import principal_angle_sine, random_basis
from cospan.core.method import Aggregation, Method, full_history, paper

D, R, AGENTS = 7, 3, 20
ROBUST = [Aggregation.CLIPPED, Aggregation.TRIMMED, Aggregation.GEOMETRIC_MEDIAN]


def column(*values: float) -> Gradient:
    return DenseMatrix(read_only([[value] for value in values]))


def scalars(*values: float, weights: tuple[float, ...] | None = None) -> Parts:
    """Numbers as sums over `weights` agents each."""
    counts = weights or (1.0,) * len(values)
    return Parts.of([column(value * count) for value, count in zip(values, counts, strict=True)], counts)


def honest(count: int = AGENTS, seed: int = 0, noise: float = 0.3) -> tuple[np.ndarray, list[np.ndarray]]:
    """A gradient that all share, and what agents see of it."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((D, R))
    return shared, [shared + noise * rng.standard_normal((D, R)) for _ in range(count)]


def rule(aggregation: Aggregation, **changes: object) -> Method:
    return dataclasses.replace(paper(5), aggregation=aggregation, **changes)  # type: ignore[arg-type]


def combined(aggregation: Aggregation, matrices: list[np.ndarray], **changes: object) -> np.ndarray:
    contributions = [Contribution(DenseMatrix(read_only(matrix))) for matrix in matrices]
    return aggregate(contributions, rule(aggregation, **changes)).gradient


# By hand --------------------------------------------------------------------------------------------------------


def test_the_weighted_median_is_where_half_of_the_weight_is_reached() -> None:
    values = np.array([3.0, 1.0, 2.0])
    assert weighted_median(values, np.ones(3)) == 2.0
    assert weighted_median(values, np.array([2.5, 1.0, 1.0])) == 3.0
    assert weighted_median(values, np.array([1.0, 1.0, 0.0])) == 1.0
    assert weighted_median(np.array([4.0]), np.array([0.5])) == 4.0


def test_clipping_by_hand() -> None:
    assert clipped_mean(scalars(1.0, -3.0, 10.0), 2.0)[0, 0] == pytest.approx((1.0 - 2.0 + 2.0) / 3.0)
    # the median norm of 1, 3, 10 is 3
    assert clipped_mean(scalars(1.0, -3.0, 10.0))[0, 0] == pytest.approx((1.0 - 3.0 + 3.0) / 3.0)
    assert clipped_mean(scalars(0.0, 0.0, 10.0))[0, 0] == 0.0


def test_trimming_by_hand() -> None:
    assert trimmed_mean(scalars(9.0, 1.0, 2.0, 3.0, -50.0), 0.2)[0, 0] == pytest.approx(2.0)
    # a tenth of five is half a value on each side: (−50 / 2 + 1 + 2 + 3 + 9 / 2) / 4
    assert trimmed_mean(scalars(9.0, 1.0, 2.0, 3.0, -50.0), 0.1)[0, 0] == pytest.approx(-14.5 / 4.0)
    # each entry by itself
    parts = Parts.of([column(0.0, 9.0), column(1.0, 1.0), column(9.0, 0.0)], (1.0,) * 3)
    np.testing.assert_allclose(trimmed_mean(parts, 1.0 / 3.0), [[1.0], [1.0]])


def test_the_geometric_median_of_numbers_is_their_median() -> None:
    assert geometric_median(scalars(0.0, 1.0, 2.0, 3.0, 1e6))[0, 0] == pytest.approx(1.5, abs=0.5)
    assert geometric_median(scalars(0.0, 1.0, 2.5))[0, 0] == pytest.approx(1.0, abs=1e-3)


def test_the_geometric_median_is_where_the_distances_have_the_least_sum() -> None:
    _, matrices = honest(9, noise=1.0)
    found = combined(Aggregation.GEOMETRIC_MEDIAN, matrices)

    def sum_of_distances(centre: np.ndarray) -> float:
        return sum(float(np.linalg.norm(matrix - centre)) for matrix in matrices)

    least = sum_of_distances(found)
    rng = np.random.default_rng(1)
    for size in (1e-3, 1e-2, 0.1):
        for _ in range(20):
            assert sum_of_distances(found + size * rng.standard_normal((D, R))) > least


def test_outliers_by_hand() -> None:
    parts = scalars(1.0, -1.0, 1.5, 3.5, -3.6)
    assert outliers_of(parts, np.zeros((1, 1))) == ()  # three times 1.5 is 4.5
    assert outliers_of(scalars(1.0, -1.0, 1.0, 3.5, -2.9), np.zeros((1, 1))) == (3,)
    assert outliers_of(scalars(1.0, 100.0), np.zeros((1, 1))) == ()  # of two, which?


# Forms and groups -----------------------------------------------------------------------------------------------


def test_stacks_of_either_form_do_the_same() -> None:
    rng = np.random.default_rng(3)
    factored: list[Gradient] = [
        FactoredMatrix(read_only(rng.standard_normal((D, m))), read_only(rng.standard_normal((R, m))))
        for m in (1, 3, 2, 1)
    ]
    ours, plain = stacked(factored), stacked([DenseMatrix(to_dense(matrix)) for matrix in factored])
    assert isinstance(ours, FactoredStack)
    assert isinstance(plain, DenseStack)
    assert ours.shape == plain.shape == (4, D, R)
    other, factors = rng.standard_normal((D, R)), rng.standard_normal(4)
    np.testing.assert_allclose(ours.squared_norms, plain.squared_norms, rtol=1e-12)
    np.testing.assert_allclose(ours.inner(other), plain.inner(other), rtol=1e-12)
    np.testing.assert_allclose(ours.combined(factors), plain.combined(factors), atol=1e-13)
    np.testing.assert_allclose(ours.rows(2, 5), plain.rows(2, 5), atol=1e-13)
    mixed = stacked([factored[0], DenseMatrix(to_dense(factored[1]))])
    assert isinstance(mixed, DenseStack)


@pytest.mark.parametrize("aggregation", ROBUST)
def test_a_group_of_equal_agents_counts_like_them(aggregation: Aggregation) -> None:
    _, matrices = honest(6)
    apart = [Contribution(DenseMatrix(matrix)) for matrix in (*matrices, matrices[0], matrices[0])]
    group = [
        Contribution(DenseMatrix(3.0 * matrices[0]), weight=3.0),
        *(Contribution(DenseMatrix(matrix)) for matrix in matrices[1:]),
    ]
    found, expected = (aggregate(each, rule(aggregation)).gradient for each in (group, apart))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("aggregation", ROBUST)
def test_equal_gradients_have_themselves_for_an_aggregate(aggregation: Aggregation) -> None:
    matrix = np.random.default_rng(4).standard_normal((D, R))
    np.testing.assert_allclose(combined(aggregation, [matrix] * 5), matrix, atol=1e-12)
    np.testing.assert_array_equal(combined(aggregation, [np.zeros((D, R))] * 5), np.zeros((D, R)))
    np.testing.assert_allclose(combined(aggregation, [matrix]), matrix, atol=1e-12)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, matrices = honest()
    whole = combined(Aggregation.TRIMMED, matrices)
    monkeypatch.setattr("cospan.core.aggregation.robust._BLOCK_NUMBERS", 2 * AGENTS * R)
    np.testing.assert_array_equal(combined(Aggregation.TRIMMED, matrices), whole)


def test_a_factor_may_be_huge_where_the_other_is_tiny() -> None:
    rng = np.random.default_rng(10)
    matrices = [FactoredMatrix(rng.standard_normal((D, 1)), rng.standard_normal((R, 1))) for _ in range(5)]
    uneven = [FactoredMatrix(2.0**900 * each.left, 2.0**-900 * each.right) for each in matrices]
    ours, plain = stacked(uneven), stacked(matrices)
    np.testing.assert_array_equal(ours.squared_norms, plain.squared_norms)
    np.testing.assert_array_equal(ours.combined(np.ones(5)), plain.combined(np.ones(5)))
    nothing = stacked([FactoredMatrix(np.zeros((D, 1)), np.ones((R, 1)))])
    np.testing.assert_array_equal(nothing.squared_norms, [0.0])


# Agents that are not honest -------------------------------------------------------------------------------------

ATTACKS = {
    "flipped": lambda matrix, _: -10.0 * matrix,
    "random": lambda matrix, rng: 100.0 * np.linalg.norm(matrix) * rng.standard_normal(matrix.shape),
    "constant": lambda matrix, _: np.full(matrix.shape, 50.0),
    "huge": lambda matrix, rng: 1e100 * rng.standard_normal(matrix.shape),
}


@pytest.mark.parametrize("aggregation", ROBUST)
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_fifth_of_agents_cannot_carry_the_aggregate_away(aggregation: Aggregation, attack: str) -> None:
    shared, matrices = honest()
    rng = np.random.default_rng(5)
    attacked = [ATTACKS[attack](matrix, rng) for matrix in matrices[:4]] + matrices[4:]
    mean, robust = (combined(each, attacked) for each in (Aggregation.MEAN, aggregation))
    assert np.linalg.norm(mean - shared) > 2.0 * np.linalg.norm(shared)
    assert np.linalg.norm(robust - shared) < 0.5 * np.linalg.norm(shared)


@pytest.mark.parametrize("attack", ATTACKS)
def test_outliers_are_named_and_do_not_pull(attack: str) -> None:
    _, matrices = honest()
    rng = np.random.default_rng(6)
    attacked = [ATTACKS[attack](matrix, rng) for matrix in matrices[:4]] + matrices[4:]
    found = aggregate([Contribution(DenseMatrix(each)) for each in attacked], rule(Aggregation.GEOMETRIC_MEDIAN))
    assert found.outliers == (0, 1, 2, 3)
    without = combined(Aggregation.GEOMETRIC_MEDIAN, matrices[4:])
    np.testing.assert_allclose(found.gradient, without, atol=1e-4)


def test_the_mean_names_nobody() -> None:
    _, matrices = honest(5)
    contributions = [Contribution(DenseMatrix(each)) for each in (*matrices, np.full((D, R), 1e6))]
    assert aggregate(contributions, rule(Aggregation.MEAN)).outliers == ()


@pytest.mark.parametrize("aggregation", ROBUST)
def test_what_scales_the_step_is_bounded_as_well(aggregation: Aggregation) -> None:
    """Row sums or second moments of enormous size would stop the basis for everybody."""
    rng = np.random.default_rng(7)
    method = dataclasses.replace(full_history(5), aggregation=aggregation, clip_norm=1e-3)
    contributions = []
    for _ in range(10):
        head = rng.standard_normal((R, 1))
        gradient = FactoredMatrix(rng.standard_normal((D, 1)), head)
        contributions.append(Contribution(gradient, 1.0, head @ head.T, rng.uniform(1.0, 2.0, D)))
    clean = aggregate(contributions, method)
    contributions[0] = dataclasses.replace(
        contributions[0], head_second_moment=1e9 * np.eye(R), pooled=np.full(D, 1e9)
    )
    found = aggregate(contributions, method)
    for attacked, honest_part in (
        (found.head_second_moment, clean.head_second_moment),
        (found.pooled, clean.pooled),
    ):
        assert attacked is not None
        assert honest_part is not None
        assert np.linalg.norm(attacked) < 3.0 * np.linalg.norm(honest_part)
    with pytest.raises(ValueError, match="does not carry"):
        aggregate([Contribution(contributions[0].gradient)], method)


@pytest.mark.parametrize("aggregation", ROBUST)
def test_the_estimates_of_a_warm_up_go_by_the_policy(aggregation: Aggregation) -> None:
    """One agent with enormous estimates does not get the first basis to itself."""
    rng = np.random.default_rng(8)
    truth = random_basis(D, 2, rng)
    pairs = [truth @ rng.standard_normal((2, 1)) + 0.01 * rng.standard_normal((D, 2)) for _ in range(12)]
    pairs[3] = np.repeat(1e3 * rng.standard_normal((D, 1)), 2, axis=1)
    contributions = [Contribution(DenseMatrix(pair)) for pair in pairs]
    basis = random_basis(D, 2, rng)
    method = rule(aggregation, warm_up_rounds=2)
    move = next_basis(basis, contributions, method, 1)
    mean = next_basis(basis, contributions, rule(Aggregation.MEAN, warm_up_rounds=2), 1)
    assert principal_angle_sine(move.basis, truth) < 0.35 < principal_angle_sine(mean.basis, truth)
    assert 3 in move.outliers
    np.testing.assert_array_equal(next_basis(basis, contributions, method, 0).basis, basis)


def test_the_mean_of_a_warm_up_is_that_of_the_products() -> None:
    """The two ways to the first basis agree where no agent is left out."""
    rng = np.random.default_rng(9)
    pairs = [rng.standard_normal((D, 2)) for _ in range(9)]
    contributions = [Contribution(DenseMatrix(pair)) for pair in pairs]
    basis = random_basis(D, 2, rng)
    mean = next_basis(basis, contributions, rule(Aggregation.MEAN, warm_up_rounds=2), 1)
    trimmed = rule(Aggregation.TRIMMED, warm_up_rounds=2, trimmed_share=1e-12)
    np.testing.assert_allclose(next_basis(basis, contributions, trimmed, 1).basis, mean.basis, atol=1e-7)


@pytest.mark.parametrize("aggregation", ROBUST)
def test_nothing_is_written_to_and_the_order_hardly_matters(aggregation: Aggregation) -> None:
    _, matrices = honest(6)
    contributions = [Contribution(DenseMatrix(read_only(matrix))) for matrix in matrices]
    forms = [
        aggregate(list(each), rule(aggregation)).gradient
        for each in itertools.islice(itertools.permutations(contributions), 0, 720, 97)
    ]
    for form in forms:
        np.testing.assert_allclose(form, forms[0], atol=1e-5)
