"""What is true: stationary distribution, gain, differential values and TD fixed points of a finite Markov chain.

Everything is linear algebra on the transition matrix P (n × n, rows sum to one, one recurrent class) and the
expected rewards R (n,).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from jaxtyping import Float


def stationary_distribution(transition: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """μ with μᵀP = μᵀ and Σμ = 1."""
    size = transition.shape[0]
    system = np.vstack([(transition - np.eye(size)).T, np.ones((1, size))])
    target = np.zeros(size + 1)
    target[-1] = 1.0
    solution = np.linalg.lstsq(system, target, rcond=None)[0]
    return np.asarray(solution / solution.sum())


def stationary_distributions(transitions: Float[np.ndarray, "m n n"]) -> Float[np.ndarray, "m n"]:
    """μ of each of several chains in which every state is visited: (I − P + 1 1ᵀ)ᵀ μ = 1.

    A twentieth of the time of `stationary_distribution`, which needs one recurrent class only.
    """
    size = transitions.shape[-1]
    systems = np.eye(size) - transitions.swapaxes(-1, -2) + 1.0
    found = np.linalg.solve(systems, np.ones((len(transitions), size, 1)))[..., 0]
    return np.asarray(found / found.sum(axis=-1, keepdims=True))


def gain(stationary: Float[np.ndarray, " n"], rewards: Float[np.ndarray, " n"]) -> float:
    """J = μ·R, the long-run mean reward per step."""
    return float(stationary @ rewards)


def differential_value(
    transition: Float[np.ndarray, "n n"], rewards: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """V with V = R − J·1 + P V and μ·V = 0 (the Poisson equation)."""
    stationary = stationary_distribution(transition)
    size = transition.shape[0]
    system = np.eye(size) - transition + np.outer(np.ones(size), stationary)
    return np.asarray(np.linalg.solve(system, rewards - gain(stationary, rewards)))


def td_system(
    features: Float[np.ndarray, "n d"],
    transition: Float[np.ndarray, "n n"],
    rewards: Float[np.ndarray, " n"],
    steps: int = 1,
) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, " d"]]:
    """A_L = Φᵀ D (P^L − I) Φ and b_L = Φᵀ D Σ_{l<L} P^l (R − J·1) of the L-step TD recursion (appendix J)."""
    stationary = stationary_distribution(transition)
    centred = rewards - gain(stationary, rewards)
    power = np.eye(transition.shape[0])
    total = np.zeros_like(centred)
    for _ in range(steps):
        total = total + power @ centred
        power = power @ transition
    weighted = features.T * stationary
    return weighted @ (power @ features - features), weighted @ total


def td_fixed_point(
    features: Float[np.ndarray, "n d"],
    transition: Float[np.ndarray, "n n"],
    rewards: Float[np.ndarray, " n"],
    steps: int = 1,
) -> Float[np.ndarray, " d"]:
    """z_L = −A_L⁻¹ b_L. The same for every L when V is in span(Φ).

    Raises:
        numpy.linalg.LinAlgError: A_L is singular, as when a constant function is in span(Φ).
    """
    matrix, vector = td_system(features, transition, rewards, steps)
    if np.linalg.cond(matrix) > 1e12:
        raise np.linalg.LinAlgError(
            "the TD system is singular: the features are linearly dependent or span a constant function"
        )
    return -np.linalg.solve(matrix, vector)


def feature_covariance(
    features: Float[np.ndarray, "n d"], stationary: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "d d"]:
    """C = E_μ[(φ − E_μφ)(φ − E_μφ)ᵀ]: zᵀ C z is the variance of φᵀz under μ."""
    centred = features - stationary @ features
    return np.asarray((centred.T * stationary) @ centred)


def relative_value_errors(
    weights: Float[np.ndarray, "m d"], target: Float[np.ndarray, " d"], covariance: Float[np.ndarray, "d d"]
) -> Float[np.ndarray, " m"]:
    """E_μ[(V̂ − V)²] / E_μ[V²], both centred, for V̂ = φᵀẑ and V = φᵀz: (ẑ−z)ᵀC(ẑ−z) / zᵀCz.

    0 is perfect, 1 is no better than zero; inf or nan for weights that are not finite.

    Args:
        weights: several ẑ, one per row.
        target: z.
        covariance: C of `feature_covariance`.
    """
    # One product with C for all of them: C is the largest thing here, and reading it is what takes the time.
    rows = np.concatenate([weights - target, target[None]])
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # weights that have diverged: their error is not finite, either
        squares = np.einsum("ij,ij->i", rows, rows @ covariance)
    return np.asarray(squares[:-1] / squares[-1])


def relative_value_error(
    weights: Float[np.ndarray, " d"], target: Float[np.ndarray, " d"], covariance: Float[np.ndarray, "d d"]
) -> float:
    """`relative_value_errors` of one ẑ, shape (d,)."""
    return float(relative_value_errors(weights[None], target, covariance)[0])


def held_shares(
    basis: Float[np.ndarray, "d r"], targets: Float[np.ndarray, "n d"], covariances: Float[np.ndarray, "n d d"]
) -> Float[np.ndarray, " n"]:
    """Share of each V's variance that a basis can represent: 1 − min_w E_μ[(φᵀBw − V)²] / E_μ[V²], 0 to 1.

    The regression of V = φᵀz on the features Bᵀφ: zᵀCB (BᵀCB)⁺ BᵀCz / zᵀCz. nan where V does not vary.

    Args:
        basis: B.
        targets: z, one per row.
        covariances: C of `feature_covariance` of each.
    """
    products = covariances @ basis  # C B, shape (n, d, r)
    inner = np.swapaxes(products, -1, -2) @ targets[..., None]  # Bᵀ C z
    held = np.swapaxes(inner, -1, -2) @ np.linalg.pinv(basis.T @ products, hermitian=True) @ inner
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.clip(held[..., 0, 0] / _quadratic_forms(targets, covariances), 0.0, 1.0))


@dataclass(frozen=True, eq=False, slots=True)
class ReferenceSolution:
    """What is known to be true of one agent's environment.

    Attributes:
        gain: J, reward per step.
        weights: z*, shape (d,): V(s) = φ(s)ᵀ z*, or its TD fixed point where V is not in the span.
        covariance: C of `feature_covariance`, shape (d, d).
        weights_uncertainty: standard error of the solution, as a `relative_value_error`; 0 where exact.
        gain_uncertainty: standard error of `gain`; 0 where exact.
    """

    gain: float
    weights: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]
    weights_uncertainty: float = 0.0
    gain_uncertainty: float = 0.0

    def value_error(self, weights: Float[np.ndarray, " d"]) -> float:
        """`relative_value_error` of an estimate ẑ, shape (d,)."""
        return relative_value_error(weights, self.weights, self.covariance)

    def value_errors(self, weights: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
        """`relative_value_errors` of several estimates, one per row."""
        return relative_value_errors(weights, self.weights, self.covariance)

    def held_share(self, basis: Float[np.ndarray, "d r"]) -> float:
        """`held_shares` of a basis."""
        return float(held_shares(basis, self.weights[None], self.covariance[None])[0])


@dataclass(frozen=True, eq=False, slots=True)
class ReferenceStack(Sequence[ReferenceSolution | None]):
    """What is known to be true of n agents' environments, to be compared with at once; nan where it is not known.

    As a sequence it has the `ReferenceSolution` of each agent, made of views, and None where nothing is known.

    Attributes:
        gains: J of each, shape (n,).
        weights: z* of each, shape (n, d).
        covariances: C of each, shape (n, d, d).
        variances: z*ᵀ C z* of each, shape (n,).
    """

    gains: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, "n d"]
    covariances: Float[np.ndarray, "n d d"]
    variances: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, references: Sequence[ReferenceSolution | None], feature_dim: int) -> "ReferenceStack":
        """Of the agents' references; None where nothing is known. A stack is given back as it is."""
        if isinstance(references, cls):
            return references
        agents = len(references)
        gains, weights = np.full(agents, np.nan), np.zeros((agents, feature_dim))
        covariances = np.zeros((agents, feature_dim, feature_dim))
        for number, reference in enumerate(references):
            if reference is not None:
                gains[number], weights[number] = reference.gain, reference.weights
                covariances[number] = reference.covariance
        return cls.of_arrays(gains, weights, covariances)

    @classmethod
    def of_arrays(
        cls,
        gains: Float[np.ndarray, " n"],
        weights: Float[np.ndarray, "n d"],
        covariances: Float[np.ndarray, "n d d"],
    ) -> "ReferenceStack":
        """Of exact solutions in arrays; the gain is nan where nothing is known."""
        variances = _quadratic_forms(weights, covariances)
        return cls(gains, weights, covariances, np.where(np.isnan(gains), np.nan, variances))

    def __len__(self) -> int:
        """How many agents."""
        return len(self.gains)

    @overload
    def __getitem__(self, place: int) -> ReferenceSolution | None: ...

    @overload
    def __getitem__(self, place: slice) -> "ReferenceStack": ...

    def __getitem__(self, place: int | slice) -> "ReferenceSolution | ReferenceStack | None":
        """That of one agent, or the stack of some of them."""
        if isinstance(place, slice):
            return self.of_agents(place)
        if np.isnan(self.gains[place]):
            return None
        return ReferenceSolution(float(self.gains[place]), self.weights[place], self.covariances[place])

    def of_agents(self, places: slice) -> "ReferenceStack":
        """Those of some of the agents, by their places."""
        return ReferenceStack(
            self.gains[places], self.weights[places], self.covariances[places], self.variances[places]
        )

    def value_errors(self, weights: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """`relative_value_error` of each agent's ẑ."""
        return np.asarray(_quadratic_forms(weights - self.weights, self.covariances) / self.variances)

    def held_shares(self, basis: Float[np.ndarray, "d r"]) -> Float[np.ndarray, " n"]:
        """`held_shares` of a basis; nan where the truth is unknown."""
        return np.where(np.isnan(self.gains), np.nan, held_shares(basis, self.weights, self.covariances))


@np.errstate(over="ignore", invalid="ignore")
def _quadratic_forms(
    vectors: Float[np.ndarray, "n d"], matrices: Float[np.ndarray, "n d d"]
) -> Float[np.ndarray, " n"]:
    return np.asarray(np.einsum("nd,nd->n", vectors, (matrices @ vectors[..., None])[..., 0]))


def common_subspace(
    weights: Float[np.ndarray, "n d"], rank: int
) -> tuple[Float[np.ndarray, "d r"], Float[np.ndarray, " k"]]:
    """The best r-dimensional subspace of a fleet's value weights, and all singular values of the weights.

    Args:
        weights: one agent's z* per row.
        rank: r, at most d. Where fewer than r agents exist the basis has as many columns as agents.
    """
    _, singular, right = np.linalg.svd(weights, full_matrices=False)
    return np.ascontiguousarray(right[:rank].T), singular
