"""From contributions to the next basis: order, weights, groups, and what is missing."""

import dataclasses

import numpy as np
import pytest
from values import read_only

from cospan.core.aggregation.basis_update import (
    Contribution,
    aggregate,
    mean_gradient,
    next_basis,
    sum_of_contributions,
)
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, Gradient, to_dense
from cospan.core.linalg.subspace import basis_step, precondition, random_basis
from cospan.core.method import HeadUpdate, Method, full_history, practical

D, R = 6, 2


def method(**changes: object) -> Method:
    values: dict[str, object] = {
        "steps_per_round": 5,
        "head_update": HeadUpdate.END_OF_ROUND,
        "head_step": 0.1,
        "gain_step": 0.1,
        "head_radius": 10.0,
        "basis_step": 0.5,
    }
    return Method(**(values | changes))  # type: ignore[arg-type]


def mean_head_second_moment(contributions: list[Contribution]) -> np.ndarray:
    return aggregate(contributions, method(preconditioned=True)).head_second_moment


def mean_row_sums(contributions: list[Contribution]) -> np.ndarray:
    full = method(head_update=HeadUpdate.FULL_HISTORY, row_scaled=True)
    return aggregate(contributions, full).pooled


def dense(values: object, weight: float = 1.0) -> Contribution:
    return Contribution(gradient=DenseMatrix(read_only(values)), weight=weight)


def some(count: int, seed: int = 0) -> list[Contribution]:
    """Rank-one gradients with the heads' second moments, one agent each."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        u, head = read_only(rng.standard_normal((D, 1))), read_only(rng.standard_normal((R, 1)))
        made.append(
            Contribution(FactoredMatrix(left=u, right=head), 1.0, head_second_moment=read_only(head @ head.T))
        )
    return made


def test_mean_by_hand() -> None:
    mean = mean_gradient([dense([[1.0], [2.0]]), dense([[3.0], [-2.0]])])
    np.testing.assert_array_equal(mean, [[2.0], [0.0]])


def test_the_mean_is_over_agents_and_not_over_sessions() -> None:
    """A sum of three weighs three times as much as one: (12 + 4) / (3 + 1)."""
    np.testing.assert_array_equal(mean_gradient([dense([[12.0]], weight=3.0), dense([[4.0]])]), [[4.0]])


def test_the_sum_goes_from_left_to_right() -> None:
    """Another order gives other bits: 1e16 + 1 − 1e16 is 0 and 1e16 − 1e16 + 1 is 1."""
    large, one, minus = dense([[1e16]]), dense([[1.0]]), dense([[-1e16]])
    assert mean_gradient([large, one, minus])[0, 0] == 0.0
    assert mean_gradient([large, minus, one])[0, 0] == 1.0 / 3.0
    moments = [
        Contribution(DenseMatrix(np.ones((1, 1))), 1.0, read_only([[value]])) for value in (1e16, 1.0, -1e16)
    ]
    assert mean_head_second_moment(moments)[0, 0] == 0.0
    assert mean_head_second_moment([moments[0], moments[2], moments[1]])[0, 0] == 1.0 / 3.0


def test_single_precision_uploads_are_summed_in_double() -> None:
    """In float32 1 + 2^-30 is 1."""
    small = Contribution(gradient=DenseMatrix(np.full((1, 1), 2.0**-30, dtype=np.float32)))
    one = Contribution(gradient=DenseMatrix(np.ones((1, 1), dtype=np.float32)))
    assert mean_gradient([one, small])[0, 0] == (1.0 + 2.0**-30) / 2.0
    assert mean_gradient([one]).dtype == np.float64
    moment = Contribution(DenseMatrix(np.ones((1, 1))), 1.0, np.ones((1, 1), dtype=np.float32))
    assert mean_head_second_moment([moment]).dtype == np.float64


def test_a_group_counts_like_its_agents() -> None:
    """The sum of three agents with weight 3 gives the mean of the three, and so the same basis."""
    agents = some(5)
    members = agents[1:4]
    group = Contribution(
        gradient=DenseMatrix(sum(to_dense(member.gradient) for member in members)),
        weight=3.0,
        head_second_moment=sum(member.head_second_moment for member in members),
    )
    apart, together = agents, [agents[0], group, agents[4]]
    np.testing.assert_allclose(mean_gradient(together), mean_gradient(apart), atol=1e-15)
    np.testing.assert_allclose(mean_head_second_moment(together), mean_head_second_moment(apart), atol=1e-15)
    basis = random_basis(D, R, np.random.default_rng(1))
    for options in ({}, {"preconditioned": True}):
        moved = next_basis(basis, together, method(**options), 0).basis
        np.testing.assert_allclose(moved, next_basis(basis, apart, method(**options), 0).basis, atol=1e-14)


def test_factors_of_a_group_side_by_side() -> None:
    """Σ u_k v_kᵀ in one factored matrix, m = 3."""
    agents = some(3)
    group = FactoredMatrix(
        left=np.hstack([agent.gradient.left for agent in agents]),
        right=np.hstack([agent.gradient.right for agent in agents]),
    )
    np.testing.assert_allclose(
        mean_gradient([Contribution(gradient=group, weight=3.0)]), mean_gradient(agents), atol=1e-15
    )


@pytest.mark.parametrize("factors", [(1, 1, 1), (1,) * 200, (3, 1, 16), (16,) * 9, (64, 1), (100, 1, 100)])
def test_factors_of_many_agents_are_multiplied_together(factors: tuple[int, ...]) -> None:
    """From 16,384 numbers on; single precision ones as well, and in the same order as matrices would be."""
    rng = np.random.default_rng(4)
    agents = [
        FactoredMatrix(read_only(rng.standard_normal((2048, m))), rng.standard_normal((8, m)).astype(np.float32))
        for m in factors
    ]
    mean = mean_gradient([Contribution(each, weight=2.0) for each in agents])
    expected = sum(to_dense(each) for each in agents) / (2.0 * len(agents))
    np.testing.assert_allclose(mean, expected, rtol=0.0, atol=1e-13 * np.abs(expected).max() * len(agents))


def test_a_tall_mean_may_mix_factors_and_matrices() -> None:
    rng = np.random.default_rng(5)
    factored = FactoredMatrix(rng.standard_normal((2048, 1)), rng.standard_normal((8, 1)))
    whole = DenseMatrix(rng.standard_normal((2048, 8)))
    expected = (to_dense(factored) + whole.values) / 2.0
    np.testing.assert_array_equal(mean_gradient([Contribution(factored), Contribution(whole)]), expected)


def test_nothing_is_written_to() -> None:
    """The arrays of uploads are views of the received bytes; these are read-only, too."""
    contributions = [*some(3), dense(np.ones((D, R)))]
    before = [to_dense(contribution.gradient).tobytes() for contribution in contributions]
    mean_gradient(contributions[::-1])
    mean_head_second_moment(contributions[:3])
    assert [to_dense(contribution.gradient).tobytes() for contribution in contributions] == before


def test_nothing_of_a_single_contribution_is_handed_out() -> None:
    """A mean that were a view of an upload would change with it."""
    values, moment = np.ones((2, 1)), np.ones((1, 1))
    only = Contribution(gradient=DenseMatrix(values), weight=1.0, head_second_moment=moment)
    mean, mean_moment = mean_gradient([only]), mean_head_second_moment([only])
    values[:], moment[:] = 7.0, 7.0
    np.testing.assert_array_equal(mean, np.ones((2, 1)))
    np.testing.assert_array_equal(mean_moment, np.ones((1, 1)))


def test_no_contribution_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no contributions"):
        mean_gradient([])
    with pytest.raises(ValueError, match="no contributions"):
        mean_head_second_moment([])


def test_row_sums_scale_the_step_of_a_full_history() -> None:
    """And ζ does not decay."""
    full = method(
        head_update=HeadUpdate.FULL_HISTORY, row_scaled=True, basis_step=1.0, decay_horizon=10.0, decay_power=1.0
    )
    sums = [np.arange(1.0, D + 1.0), np.full(D, 3.0)]
    contributions = [dataclasses.replace(c, pooled=s) for c, s in zip(some(2), sums, strict=True)]
    np.testing.assert_array_equal(mean_row_sums(contributions), (sums[0] + sums[1]) / 2.0)
    mean = mean_row_sums(contributions)
    direction = mean_gradient(contributions) / (mean + 0.1 * mean.mean())[:, None]
    basis = random_basis(D, R, np.random.default_rng(2))
    move = next_basis(basis, contributions, full, 30)
    np.testing.assert_allclose(move.basis, basis_step(basis, direction, 1.0)[0], atol=1e-15)
    np.testing.assert_array_equal(move.step_memory, mean)
    with pytest.raises(ValueError, match="no pooled numbers are known"):
        next_basis(basis, some(2), full, 0)
    bare = next_basis(basis, some(2), full, 1000, mean)
    np.testing.assert_array_equal(bare.basis, next_basis(basis, contributions, full, 30).basis)
    carried = next_basis(basis, contributions, full, 31, 2.0 * mean)
    np.testing.assert_array_equal(carried.step_memory, 2.0 * mean, "in between they are not looked at")
    one_lacks = next_basis(basis, [*some(2)[:1], contributions[1]], full, 30, 2.0 * mean)
    np.testing.assert_array_equal(one_lacks.step_memory, sums[1], "an older gradient may lack them")
    none_has = next_basis(basis, some(2), full, 30, 2.0 * mean)
    np.testing.assert_array_equal(none_has.step_memory, 2.0 * mean)


def test_a_missing_second_moment_is_named() -> None:
    contributions = [*some(2), dense(np.ones((D, R)))]
    with pytest.raises(ValueError, match="does not carry"):
        mean_head_second_moment(contributions)
    basis = random_basis(D, R, np.random.default_rng(1))
    with pytest.raises(ValueError, match="does not carry"):
        next_basis(basis, contributions, method(preconditioned=True), 0)
    assert next_basis(basis, contributions, method(), 0).movement > 0.0


def test_next_basis_is_mean_then_step() -> None:
    basis, contributions = read_only(random_basis(D, R, np.random.default_rng(2))), some(4)
    move = next_basis(basis, contributions, method(), 7)
    expected = basis_step(basis, mean_gradient(contributions), 0.5)[0]
    np.testing.assert_array_equal(move.basis, expected)
    assert move.orthonormality_error == np.abs(expected.T @ expected - np.eye(R)).max() < 1e-14
    assert move.movement == pytest.approx(np.linalg.svd(expected - basis @ (basis.T @ expected))[1][0], rel=1e-12)
    assert 0.0 < move.movement < 1.0


def test_next_basis_preconditions_the_mean() -> None:
    basis, contributions = random_basis(D, R, np.random.default_rng(2)), some(4)
    move = next_basis(basis, contributions, method(preconditioned=True, preconditioner_floor=0.2), 0)
    direction = precondition(mean_gradient(contributions), mean_head_second_moment(contributions), 0.2)
    np.testing.assert_array_equal(move.basis, basis_step(basis, direction, 0.5)[0])


def test_the_step_decays_with_the_environment_steps_of_one_agent() -> None:
    """ζ (c / (c + t·L))^p with c = 20, p = 0.5, L = 5, t = 12: half of ζ."""
    basis, contributions = random_basis(D, R, np.random.default_rng(2)), some(4)
    decaying = method(decay_horizon=20.0, decay_power=0.5)
    np.testing.assert_allclose(
        next_basis(basis, contributions, decaying, 12).basis,
        basis_step(basis, mean_gradient(contributions), 0.25)[0],
        atol=1e-15,
    )
    first = next_basis(basis, contributions, decaying, 0).basis
    np.testing.assert_array_equal(first, next_basis(basis, contributions, method(), 0).basis)


def test_a_step_of_zero_freezes_the_basis() -> None:
    basis = random_basis(D, R, np.random.default_rng(2))
    move = next_basis(basis, some(4), method(basis_step=0.0), 0)
    np.testing.assert_allclose(move.basis, basis, atol=1e-15)
    assert move.movement < 1e-15


def test_gradients_that_overflow_are_a_named_failure() -> None:
    """A hostile upload is finite and huge; NaN must not become the basis of everyone."""
    basis = random_basis(D, R, np.random.default_rng(2))
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(np.linalg.LinAlgError, match="cannot orthonormalise"),
    ):
        next_basis(basis, [dense(np.full((D, R), 1.7e308)), dense(np.full((D, R), 1.7e308))], method(), 0)


def test_rows_of_small_gradients_take_larger_steps() -> None:
    """v = squared norms of the rows; step / (√v + 0.1 mean √v), and v ← 0.95 v + 0.05 new."""
    basis, scaled = random_basis(D, R, np.random.default_rng(2)), method(row_scaled=True)
    first, second = some(4), [dense(np.arange(D * R, dtype=np.float64).reshape(D, R))]
    move = next_basis(basis, first, scaled, 0)
    mean = mean_gradient(first)
    squares = (mean**2).sum(axis=1)
    scales = 1.0 / (np.sqrt(squares) + 0.1 * np.sqrt(squares).mean())
    np.testing.assert_allclose(move.basis, basis_step(basis, scales[:, None] * mean, 0.5)[0], rtol=1e-13)
    assert move.step_memory is not None
    np.testing.assert_allclose(move.step_memory, squares, rtol=1e-14)
    after = next_basis(move.basis, second, scaled, 1, move.step_memory)
    assert after.step_memory is not None
    expected = 0.95 * squares + 0.05 * (mean_gradient(second) ** 2).sum(axis=1)
    np.testing.assert_allclose(after.step_memory, expected, rtol=1e-13)
    assert next_basis(basis, first, method(), 0).step_memory is None


def test_a_first_gradient_of_zero_scales_nothing() -> None:
    """Heads begin at zero, and so do gradients."""
    basis = random_basis(D, R, np.random.default_rng(2))
    move = next_basis(basis, [dense(np.zeros((D, R)))], method(row_scaled=True), 0)
    np.testing.assert_allclose(move.basis, basis, atol=1e-15)


def test_scaled_rows_do_not_depend_on_how_the_basis_is_turned() -> None:
    basis, scaled = random_basis(D, R, np.random.default_rng(2)), method(row_scaled=True)
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((R, R)))[0]
    agents = some(3)
    turned = [
        Contribution(DenseMatrix(to_dense(agent.gradient) @ turn), agent.weight, agent.head_second_moment)
        for agent in agents
    ]
    one, other = next_basis(basis, agents, scaled, 0), next_basis(basis @ turn, turned, scaled, 0)
    np.testing.assert_allclose(one.basis @ one.basis.T, other.basis @ other.basis.T, atol=1e-12)


# Sums of contributions, as relays and groups send them ---------------------------------------------------------


def of_both_kinds(count: int, d: int = 5, r: int = 2, seed: int = 3) -> list[Contribution]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        head = rng.normal(size=r)
        gradient = (
            DenseMatrix(rng.normal(size=(d, r)))
            if number % 2
            else FactoredMatrix(rng.normal(size=(d, 1)), rng.normal(size=(r, 1)))
        )
        made.append(Contribution(gradient, 1.0 + number, np.outer(head, head), rng.random(d)))
    return made


@pytest.mark.parametrize("rule", [practical(3), full_history(3)])
def test_sums_of_parts_come_to_the_aggregate_of_all(rule: Method) -> None:
    parts = of_both_kinds(7)
    whole = aggregate(parts, rule)
    halves = aggregate([sum_of_contributions(parts[:3]), sum_of_contributions(parts[3:])], rule)
    np.testing.assert_allclose(halves.gradient, whole.gradient, rtol=1e-14, atol=1e-15)
    assert whole.pooled is not None
    np.testing.assert_allclose(halves.pooled, whole.pooled, rtol=1e-14)
    assert sum_of_contributions(parts).weight == sum(part.weight for part in parts)


def test_moments_and_row_sums_are_summed_likewise() -> None:
    parts = of_both_kinds(4)
    total = sum_of_contributions(parts)
    moments = [part.head_second_moment for part in parts if part.head_second_moment is not None]
    rows = [part.pooled for part in parts if part.pooled is not None]
    assert total.head_second_moment is not None
    assert total.pooled is not None
    np.testing.assert_array_equal(total.head_second_moment, ((moments[0] + moments[1]) + moments[2]) + moments[3])
    np.testing.assert_array_equal(total.pooled, ((rows[0] + rows[1]) + rows[2]) + rows[3])


def test_float32_is_accumulated_in_float64_and_nothing_is_written_to() -> None:
    small = np.full((2, 1), 1e-9, dtype=np.float32)
    parts = [Contribution(DenseMatrix(np.ones((2, 1), dtype=np.float32)))] + [Contribution(DenseMatrix(small))] * 9
    total = to_dense(sum_of_contributions(parts).gradient)
    assert total.dtype == np.float64
    assert (total > 1.0).all()
    one = of_both_kinds(2)[1:]
    before = to_dense(one[0].gradient).copy()
    to_dense(sum_of_contributions(one).gradient)[:] = 0.0
    np.testing.assert_array_equal(to_dense(one[0].gradient), before)


def test_row_sums_that_one_lacks_the_sum_lacks() -> None:
    first, second = of_both_kinds(2)
    total = sum_of_contributions([first, dataclasses.replace(second, pooled=None)])
    assert total.head_second_moment is not None
    assert total.pooled is None


@pytest.mark.parametrize("keep_factors", [False, True])
def test_a_second_moment_that_one_lacks_the_sum_lacks(keep_factors: bool) -> None:
    """Where the run does not precondition, an agent may send one or not; elsewhere such parts have no aggregate."""
    first, second = of_both_kinds(2)
    parts = [first, dataclasses.replace(second, head_second_moment=None)]
    total = sum_of_contributions(parts, keep_factors=keep_factors)
    assert total.head_second_moment is None
    assert total.pooled is not None
    with pytest.raises(ValueError, match="a contribution does not carry"):
        aggregate(parts, full_history(3))


def test_second_moments_that_all_lack_the_sum_lacks() -> None:
    assert (
        sum_of_contributions(
            [dataclasses.replace(part, head_second_moment=None) for part in of_both_kinds(3)]
        ).head_second_moment
        is None
    )


@pytest.mark.parametrize(("agents", "kind"), [(1, FactoredMatrix), (2, FactoredMatrix), (3, DenseMatrix)])
def test_factors_are_kept_where_they_are_fewer_than_the_rank(agents: int, kind: type[Gradient]) -> None:
    rng = np.random.default_rng(1)
    parts = [Contribution(FactoredMatrix(rng.random((5, 1)), rng.random((3, 1)))) for _ in range(agents)]
    kept, entries = sum_of_contributions(parts, keep_factors=True).gradient, sum_of_contributions(parts).gradient
    assert isinstance(kept, kind)
    np.testing.assert_allclose(to_dense(kept), to_dense(entries), rtol=1e-15)


def test_no_contributions_have_no_sum() -> None:
    with pytest.raises(ValueError, match="the sum of no contributions"):
        sum_of_contributions([])
