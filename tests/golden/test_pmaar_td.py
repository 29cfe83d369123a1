"""Fifty rounds of the core against fifty rounds of `straight_line.py`, every quantity of every round.

The two sides are never realigned: each continues from its own results, so that a difference anywhere would stay and
grow.
"""

import ast
import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from golden import straight_line
from golden.straight_line import Constants

from cospan.core.aggregation.basis_update import Contribution, mean_gradient, next_basis
from cospan.core.learning.learner import learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.learning.td import l_step_error
from cospan.core.linalg import subspace
from cospan.core.linalg.matrices import to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import HeadUpdate, Method

AGENTS, STATES, D, R, L, ROUNDS = 4, 9, 6, 2, 5, 50


@dataclass
class Site:
    """A random chain that is never reset; the agent's own learner in both implementations."""

    features: np.ndarray
    transition: np.ndarray
    rewards: np.ndarray
    rng: np.random.Generator
    state: int = 0
    core: LearnerState = field(default_factory=lambda: LearnerState.initial(R))
    plain: straight_line.Agent = field(default_factory=lambda: straight_line.Agent([0.0] * R))

    def advance(self) -> Trajectory:
        states, rewards = [self.state], []
        for _ in range(L):
            rewards.append(self.rewards[self.state] + 0.3 * self.rng.standard_normal())
            self.state = int(self.rng.choice(STATES, p=self.transition[self.state]))
            states.append(self.state)
        return Trajectory(features=self.features[states], rewards=np.array(rewards))


def fleet(seed: int, scales: tuple[float, ...]) -> list[Site]:
    """Sites with common features, ‖φ(s)‖ ≤ 1, and with kernels and rewards of their own."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((STATES, D))
    features /= np.linalg.norm(features, axis=1).max()
    sites = []
    for index, scale in enumerate(scales):
        transition = rng.dirichlet(np.full(STATES, 0.5), size=STATES)
        rewards = scale * rng.standard_normal(STATES) + 0.5
        sites.append(Site(features, transition, rewards, np.random.default_rng((seed, index))))
    return sites


@pytest.fixture
def orthonormalised(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Every B̄ that the core orthonormalises, in turn."""
    seen: list[np.ndarray] = []
    original = subspace.orthonormalise

    def record(matrix: np.ndarray) -> np.ndarray:
        seen.append(matrix.copy())
        return original(matrix)

    monkeypatch.setattr(subspace, "orthonormalise", record)
    return seen


def close(actual: object, expected: object, tolerance: float) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=tolerance, atol=tolerance)


def test_fifty_rounds_of_algorithm_1(orthonormalised: list[np.ndarray]) -> None:
    constants = Constants(beta=0.4, gamma=0.1, radius=0.8, zeta=0.5)
    method = Method(
        steps_per_round=L,
        head_update=HeadUpdate.END_OF_ROUND,
        head_step=0.4,
        gain_step=0.1,
        head_radius=0.8,
        basis_step=0.5,
    )
    sites = fleet(seed=1, scales=(0.3, 0.6, 1.0, 4.0))
    basis = random_basis(D, R, np.random.default_rng(2))
    plain_basis = basis.tolist()
    orthonormalised.clear()
    on_the_ball, turned = 0, 0.0

    for round_number in range(ROUNDS):
        contributions, plain_rounds = [], []
        for site in sites:
            trajectory = site.advance()
            features, rewards = trajectory.features, trajectory.rewards
            before = site.core
            outcome = learn_round(before, basis, trajectory, method)
            site.core = outcome.state
            plain = straight_line.paper_round(
                site.plain, plain_basis, features.tolist(), rewards.tolist(), constants
            )

            error = l_step_error(rewards, before.gain_estimate, features[0], features[-1], basis @ before.head)
            close(error, plain.errors[0], 1e-12)
            close(outcome.mean_squared_error, plain.errors[0] ** 2, 1e-12)
            close(to_dense(outcome.gradient), plain.gradient, 1e-12)
            close(outcome.head_second_moment, plain.second_moment, 1e-12)
            close(outcome.state.head, plain.head, 1e-12)
            close(outcome.state.gain_estimate, plain.gain, 1e-12)
            on_the_ball += abs(np.linalg.norm(outcome.state.head) - method.head_radius) < 1e-12
            contributions.append(Contribution(gradient=outcome.gradient))
            plain_rounds.append(plain)

        move = next_basis(basis, contributions, method, round_number)
        coordinator = straight_line.coordinator_round(plain_basis, plain_rounds, constants, round_number * L)
        mean = mean_gradient(contributions)
        close(mean, coordinator.mean, 1e-12)
        close(method.basis_step * subspace.tangent_projection(basis, mean), coordinator.step, 1e-12)
        close(orthonormalised[-1], coordinator.unnormalised, 1e-12)
        close(move.basis, coordinator.basis, 1e-12)
        turned += move.movement
        basis, plain_basis = move.basis, coordinator.basis

    assert len(orthonormalised) == ROUNDS
    assert 0 < on_the_ball < ROUNDS * AGENTS, "the ball must be active for some heads and not for all"
    assert turned > 1.0, "the basis must move for the comparison to mean anything"


def every_step(*, implicit: bool, preconditioned: bool, decaying: bool) -> tuple[Method, Constants]:
    """The same options for both implementations."""
    method = Method(
        steps_per_round=L,
        head_update=HeadUpdate.EVERY_STEP,
        head_step=2.0 if implicit else 0.3,
        gain_step=0.1,
        head_radius=1.2,
        basis_step=0.2 if preconditioned else 0.05,
        implicit_head_step=implicit,
        preconditioned=preconditioned,
        preconditioner_floor=0.05,
        decay_horizon=40.0 if decaying else 0.0,
        decay_power=0.7 if decaying else 0.0,
    )
    constants = Constants(
        beta=method.head_step,
        gamma=0.1,
        radius=1.2,
        zeta=method.basis_step,
        implicit=implicit,
        epsilon=0.05 if preconditioned else None,
        horizon=method.decay_horizon,
        power=method.decay_power,
    )
    return method, constants


@pytest.mark.parametrize(
    ("implicit", "preconditioned", "decaying"), list(itertools.product((False, True), repeat=3))
)
def test_fifty_rounds_with_head_updates_at_every_step(
    implicit: bool, preconditioned: bool, decaying: bool, orthonormalised: list[np.ndarray]
) -> None:
    method, constants = every_step(implicit=implicit, preconditioned=preconditioned, decaying=decaying)
    sites = fleet(seed=3, scales=(0.3, 0.6, 1.0, 3.0))
    basis = random_basis(D, R, np.random.default_rng(4))
    plain_basis = basis.tolist()
    orthonormalised.clear()
    on_the_ball, turned = 0, 0.0

    for round_number in range(ROUNDS):
        contributions, plain_rounds = [], []
        for site in sites:
            trajectory = site.advance()
            outcome = learn_round(site.core, basis, trajectory, method)
            site.core = outcome.state
            plain = straight_line.every_step_round(
                site.plain, plain_basis, trajectory.features.tolist(), trajectory.rewards.tolist(), constants
            )
            close(outcome.mean_squared_error, sum(e * e for e in plain.errors) / L, 1e-10)
            close(to_dense(outcome.gradient), plain.gradient, 1e-10)
            close(outcome.head_second_moment, plain.second_moment, 1e-10)
            close(outcome.state.head, plain.head, 1e-10)
            close(outcome.state.gain_estimate, plain.gain, 1e-10)
            assert outcome.state.steps == site.plain.steps
            on_the_ball += abs(np.linalg.norm(outcome.state.head) - method.head_radius) < 1e-12
            contributions.append(
                Contribution(gradient=outcome.gradient, head_second_moment=outcome.head_second_moment)
            )
            plain_rounds.append(plain)

        move = next_basis(basis, contributions, method, round_number)
        coordinator = straight_line.coordinator_round(plain_basis, plain_rounds, constants, round_number * L)
        close(mean_gradient(contributions), coordinator.mean, 1e-10)
        close(orthonormalised[-1], coordinator.unnormalised, 1e-10)
        close(move.basis, coordinator.basis, 1e-10)
        turned += move.movement
        basis, plain_basis = move.basis, coordinator.basis

    assert 0 < on_the_ball < ROUNDS * AGENTS
    assert turned > 1.0


def test_the_straight_line_imports_neither_cospan_nor_numpy() -> None:
    """Otherwise the two implementations could be wrong together."""
    tree = ast.parse(Path(straight_line.__file__).read_text(encoding="utf-8"))
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {ast.unparse(node) for node in statements} == {"import math", "from dataclasses import dataclass"}
