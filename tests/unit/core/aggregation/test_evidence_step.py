"""The coordinator's step on the evidence, on fleets of the model itself."""

import dataclasses
import itertools

import numpy as np
import pytest

from cospan.core.aggregation.basis_update import Contribution, next_basis
from cospan.core.aggregation.evidence_step import evidence_step, packed, positive_part, rank_in_use, unpacked
from cospan.core.aggregation.fallback import sound_move
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.linalg.subspace import largest_angle, orthonormality_error, principal_angle_sine, random_basis
from cospan.core.method import Aggregation, practical

D, R = 10, 2
METHOD = practical(5)


class Fleet:
    """Agents whose weights are B w + e, each known through moments with an information H of its own.

    K = (H⁻¹ + ψ)⁻¹ and the score K ẑ are all that an agent's gradient needs; ẑ ~ N(0, B W Bᵀ + K⁻¹).
    """

    def __init__(self, agents: int, seed: int = 0, rank: int = R, size: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.truth = random_basis(D, rank, rng)
        self.curvatures, self.scores = [], []
        for _ in range(agents):
            root = rng.standard_normal((D, 3 * D)) * np.sqrt(np.linspace(1.0, 20.0, D))[:, None]
            curvature = np.linalg.inv(np.linalg.inv(root @ root.T / (3 * D)) + 0.02 * np.eye(D))
            weights = size * self.truth @ rng.standard_normal(rank)
            noise = np.linalg.cholesky(np.linalg.inv(curvature)) @ rng.standard_normal(D)
            self.curvatures.append(curvature)
            self.scores.append(curvature @ (weights + noise))

    def gradient(self, basis: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """The mean of (T − g gᵀ) B, with full matrices: T = (K⁻¹ + B W Bᵀ)⁻¹, g = T K⁻¹ score."""
        total = np.zeros_like(basis)
        for curvature, score in zip(self.curvatures, self.scores, strict=True):
            noise = np.linalg.inv(curvature)
            whole = np.linalg.inv(noise + basis @ covariance @ basis.T)
            g = whole @ noise @ score
            total += (whole - np.outer(g, g)) @ basis
        return total / len(self.scores)

    def minus_log_evidence(self, basis: np.ndarray, covariance: np.ndarray) -> float:
        found = 0.0
        for curvature, score in zip(self.curvatures, self.scores, strict=True):
            noise = np.linalg.inv(curvature)
            whole, estimate = noise + basis @ covariance @ basis.T, noise @ score
            found += (np.linalg.slogdet(whole)[1] + estimate @ np.linalg.solve(whole, estimate)) / 2.0
        return float(found / len(self.scores))

    @property
    def curvature(self) -> np.ndarray:
        return np.mean(self.curvatures, axis=0)

    def stepped(
        self, basis: np.ndarray, covariance: np.ndarray, **changes: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return evidence_step(
            basis,
            covariance,
            self.gradient(basis, covariance),
            self.curvature,
            float(len(self.scores)),
            **changes,
        )

    def learnt(self, rank: int, rounds: int = 60) -> tuple[np.ndarray, np.ndarray]:
        basis, covariance = random_basis(D, rank, np.random.default_rng(9)), np.eye(rank)
        for _ in range(rounds):
            basis, covariance, _ = self.stepped(basis, covariance)
        return basis, covariance


def test_steps_reduce_minus_the_log_evidence() -> None:
    fleet = Fleet(60)
    basis, covariance = random_basis(D, R, np.random.default_rng(9)), np.eye(R)
    values = [fleet.minus_log_evidence(basis, covariance)]
    for _ in range(8):
        basis, covariance, _ = fleet.stepped(basis, covariance)
        values.append(fleet.minus_log_evidence(basis, covariance))
    assert all(later < earlier for earlier, later in itertools.pairwise(values[:6]))
    assert values[-1] < values[0] - 0.1
    assert values[-1] <= fleet.minus_log_evidence(fleet.truth, np.eye(R)) + 0.05, "the truth explains it no better"


def test_the_span_of_a_fleet_is_recovered() -> None:
    fleet = Fleet(400)
    basis, covariance = fleet.learnt(R)
    assert principal_angle_sine(fleet.truth, basis) < 0.1
    turned = basis.T @ fleet.truth
    np.testing.assert_allclose(turned.T @ covariance @ turned, np.eye(R), atol=0.25)


@pytest.mark.parametrize("agents", [40, 400])
def test_directions_that_are_not_shared_are_switched_off(agents: int) -> None:
    """r is three too many: three eigenvalues of W come to next to nothing, and the others span what is shared."""
    fleet = Fleet(agents)
    basis, covariance = fleet.learnt(R + 3)
    sizes, vectors = np.linalg.eigh(covariance)
    assert sizes[2] < 0.1 * sizes[3]
    assert principal_angle_sine(fleet.truth, basis @ vectors[:, 3:]) < 0.35


def test_a_fleet_that_shares_nothing_switches_all_off_and_the_run_goes_on() -> None:
    """W would be halved in every round until it were 0, and nothing can be divided by that."""
    curvature = Fleet(40).curvature
    basis, covariance = random_basis(D, R, np.random.default_rng(9)), np.eye(R)
    for _ in range(1200):
        within = basis.T @ curvature @ basis
        gradient = curvature @ basis @ np.linalg.inv(np.eye(R) + covariance @ within)  # every score is 0
        basis, covariance, _ = evidence_step(basis, covariance, gradient, curvature, 40.0, largest_turn=5.0)
    assert np.linalg.eigvalsh(covariance)[0] >= 0.9e-9
    assert np.linalg.eigvalsh(covariance)[-1] < 1e-8


def test_what_comes_out_is_a_basis_and_a_covariance() -> None:
    fleet = Fleet(5, seed=3)
    basis, covariance = random_basis(D, 4, np.random.default_rng(1)), np.diag([4.0, 1.0, 1e-3, 0.0])
    for _ in range(20):
        basis, covariance, step = fleet.stepped(basis, covariance)
        assert orthonormality_error(basis) < 1e-13
        np.testing.assert_array_equal(covariance, covariance.T)
        assert np.linalg.eigvalsh(covariance)[0] > 0.0
        assert step.shape == basis.shape


def test_the_signs_of_columns_carry_over() -> None:
    fleet, signs = Fleet(20), np.diag([1.0, -1.0])
    basis = random_basis(D, R, np.random.default_rng(1))
    covariance = np.array([[2.0, 0.3], [0.3, 1.0]])
    one, w, _ = fleet.stepped(basis, covariance)
    other, v, _ = fleet.stepped(basis @ signs, signs @ covariance @ signs)
    np.testing.assert_allclose(other, one @ signs, atol=1e-12)
    np.testing.assert_allclose(v, signs @ w @ signs, atol=1e-12)
    assert (np.sum(one * basis, axis=0) > 0.0).all(), "no column is turned about"


@pytest.mark.parametrize("bound", [2.0, 10.0])
def test_no_direction_turns_further_than_the_bound(bound: float) -> None:
    fleet, basis = Fleet(60), random_basis(D, R, np.random.default_rng(9))
    free, _, _ = fleet.stepped(basis, np.eye(R))
    assert largest_angle(basis, free) > bound
    held, covariance, step = fleet.stepped(basis, np.eye(R), largest_turn=bound)
    assert largest_angle(basis, held) == pytest.approx(bound, abs=1e-6)
    assert np.linalg.svd(step, compute_uv=False)[0] == pytest.approx(np.tan(np.radians(bound)))
    assert np.linalg.eigvalsh(covariance)[0] > 0.0


def test_a_step_of_no_share_and_one_of_no_curvature_leave_all_as_it_is() -> None:
    fleet, basis, covariance = Fleet(3), random_basis(D, R, np.random.default_rng(9)), np.eye(R)
    for found in (
        fleet.stepped(basis, covariance, share=0.0),
        evidence_step(basis, covariance, np.zeros((D, R)), np.zeros((D, D)), 3.0),
    ):
        assert found[0] is basis
        assert found[1] is covariance
        assert not found[2].any()


def test_a_curvature_of_a_constant_direction_is_borne() -> None:
    """One-hot features: their sum is constant, K has that in its null space, and float32 makes it indefinite."""
    still = np.eye(D) - np.full((D, D), 1.0 / D)
    basis = random_basis(D, R, np.random.default_rng(9))
    for scale in (1e-6, 1.0, 1e6):
        curvature = unpacked(packed(scale * still @ Fleet(1).curvature @ still), D)
        following, covariance, _ = evidence_step(basis, np.eye(R), curvature @ basis, curvature, 5.0)
        assert orthonormality_error(following) < 1e-13
        assert np.isfinite(covariance).all()


INDEFINITE = np.diag([1.0] * (D - 1) + [-0.5])


@pytest.mark.parametrize(
    ("gradient", "curvature"),
    [
        (np.full((D, R), np.nan), np.eye(D)),
        (np.full((D, R), np.inf), np.eye(D)),
        (np.ones((D, R)), np.full((D, D), np.inf)),
        (np.ones((D, R)), np.diag([np.nan] * D)),
        (np.ones((D, R)), INDEFINITE),
    ],
)
def test_what_no_agent_can_have_sent_is_an_error(gradient: np.ndarray, curvature: np.ndarray) -> None:
    basis = random_basis(D, R, np.random.default_rng(9))
    with pytest.raises(np.linalg.LinAlgError):
        evidence_step(basis, np.eye(R), gradient, curvature, 3.0)


def of(gradient: np.ndarray, curvature: np.ndarray) -> Contribution:
    return Contribution(DenseMatrix(gradient), pooled=np.append(packed(curvature), 1.0))


def test_the_fallback_leaves_out_whom_it_fails_with() -> None:
    """The second and the fourth are told apart from the others, and the basis is that of the others alone."""
    fleet, basis = Fleet(3), random_basis(D, R, np.random.default_rng(9))
    sound = [of(fleet.gradient(basis, np.eye(R)), curvature) for curvature in fleet.curvatures]
    ill = of(np.ones((D, R)), 1e4 * INDEFINITE)
    found = sound_move(basis, [sound[0], ill, sound[1], ill, sound[2]], METHOD, 0, head_covariance=np.eye(R))
    assert found.left_out == (1, 3)
    assert "positive definite" in found.problem
    expected = next_basis(basis, sound, METHOD, 0, head_covariance=np.eye(R))
    np.testing.assert_array_equal(found.move.basis, expected.basis)
    np.testing.assert_array_equal(found.move.head_covariance, expected.head_covariance)


def test_between_the_rounds_with_a_curvature_the_last_one_holds() -> None:
    fleet, basis = Fleet(3), random_basis(D, R, np.random.default_rng(9))
    sent = [of(fleet.gradient(basis, np.eye(R)), curvature) for curvature in fleet.curvatures]
    first = next_basis(basis, sent, METHOD, 7, head_covariance=np.eye(R))
    np.testing.assert_allclose(first.step_memory, np.append(packed(fleet.curvature), 1.0), rtol=1e-6)
    bare = [dataclasses.replace(each, pooled=None) for each in sent]
    later = next_basis(basis, bare, METHOD, 8, first.step_memory, head_covariance=np.eye(R))
    assert later.step_memory is first.step_memory
    with pytest.raises(ValueError, match="no pooled numbers are known"):
        next_basis(basis, bare, METHOD, 8, head_covariance=np.eye(R))


@pytest.mark.parametrize("aggregation", [Aggregation.TRIMMED, Aggregation.CLIPPED, Aggregation.GEOMETRIC_MEDIAN])
def test_robust_policies_give_a_curvature_that_can_be_divided_by(aggregation: Aggregation) -> None:
    """Trimmed entry by entry, positive matrices may come to one that is not."""
    rng = np.random.default_rng(1)
    method = dataclasses.replace(METHOD, aggregation=aggregation)
    basis = random_basis(D, R, rng)
    for _ in range(20):
        rows = rng.standard_normal((8, 1, D)) * rng.lognormal(0.0, 2.0, (8, 1, 1))
        sent = [of(0.1 * rng.standard_normal((D, R)), row.T @ row + 1e-3 * np.eye(D)) for row in rows]
        move = next_basis(basis, sent, method, 0, head_covariance=np.eye(R))
        assert move.orthonormality_error < 1e-13
        assert np.isfinite(move.head_covariance).all()


def test_the_positive_part_is_the_nearest() -> None:
    np.testing.assert_allclose(positive_part(INDEFINITE), np.diag([1.0] * (D - 1) + [0.0]), atol=1e-15)
    sound = Fleet(1).curvature
    np.testing.assert_allclose(positive_part(sound), sound, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_packed_matrices_come_back_to_float32(dim: int) -> None:
    matrix = np.random.default_rng(dim).standard_normal((dim, dim))
    matrix = matrix + matrix.T
    triangle = packed(matrix)
    assert triangle.shape == (dim * (dim + 1) // 2,)
    assert triangle.dtype == np.float64
    np.testing.assert_array_equal(unpacked(triangle, dim), matrix.astype(np.float32))
    np.testing.assert_array_equal(packed(unpacked(triangle, dim)), triangle)
    np.testing.assert_array_equal(packed(np.stack([matrix, 2.0 * matrix])), [triangle, 2.0 * triangle])


def test_the_rank_in_use_leaves_out_directions_that_are_switched_off() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(5, 5)))
    for eigenvalues, expected in (((9.0, 4.0, 0.5, 1e-3, 1e-5), 4), ((2.0, 2e-6, 2e-6, 2e-6, 2e-6), 1)):
        covariance = (turn * np.array(eigenvalues)) @ turn.T
        assert rank_in_use(covariance) == expected
        assert rank_in_use(1e9 * covariance) == expected, "whatever the unit"
    assert rank_in_use(np.eye(5)) == 5


def test_a_round_whose_curvatures_are_all_indefinite_leaves_the_basis() -> None:
    """Whatever peers send, they do not end the run."""
    basis, covariance = random_basis(D, R, np.random.default_rng(3)), np.eye(R)
    curvature = np.diag([1.0] * (D - 1) + [-5.0])
    bad = [Contribution(DenseMatrix(np.ones((D, R))), pooled=np.append(packed(curvature), 1.0)) for _ in range(2)]
    found = sound_move(basis, bad, METHOD, 0, head_covariance=covariance)
    assert found.left_out == (0, 1)
    assert found.problem
    assert found.move.basis is basis
    assert found.move.head_covariance is covariance
