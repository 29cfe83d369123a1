"""Synthetic fleets of finite Markov chains whose value functions share a subspace exactly.

The common part of a fleet, the features Φ and the basis B*, is drawn from the seed; what is an agent's own,
its head w^k, its transitions P^k and its rewards, from (seed, index). In both kinds V^k = Φ B* w^k solves the
Poisson equation V = R − J·1 + P V exactly:

* own rewards: P^k is drawn freely and R^k = J^k + V^k − P^k V^k;
* common rewards: one R for all, and P^k is drawn and then tilted until it fits.

Scales: the columns of Φ are orthogonal to each other and to the constant, ΦᵀΦ = c² I with the largest row of norm
one, and ‖w^k‖ = √n / c, so that V^k has variance one over the n states, equally weighted. c ≥ 1, hence ‖w^k‖ ≤ √n
(7.1 for the 50 states of the built-in workloads).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Float

from cospan.client.features import TabularFeatures
from cospan.client.workload import Site, Sites, Workload
from cospan.client.workloads.models.finite_chains import FiniteChainEnv, FiniteChains
from cospan.core.exact_solutions import (
    ReferenceStack,
    common_subspace,
    feature_covariance,
    stationary_distributions,
)
from cospan.core.linalg.subspace import random_basis

_FLEET_TAG = 0x73796E66  # "synf", "syna": keep these draws apart from other draws of the same seed
_AGENT_TAG = 0x73796E61


@dataclass(frozen=True, slots=True)
class ChainSizes:
    """How large the chains of a fleet are.

    Attributes:
        states: n, number of states.
        feature_dim: d, at most n − 1: with d = n the features would span the constants.
        rank: r, at most d.
    """

    states: int = 50
    feature_dim: int = 20
    rank: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= self.feature_dim < self.states:
            raise ValueError(
                f"states = {self.states}, feature_dim = {self.feature_dim}, rank = {self.rank}: "
                "1 ≤ rank ≤ feature_dim < states is needed"
            )


@dataclass(frozen=True, eq=False, slots=True)
class ChainInstance:
    """A finite chain whose truth is known; V = Φ B* w solves V = R − J·1 + P V.

    Attributes:
        features: Φ, shape (n, d), rows of norm at most one, columns of mean zero.
        basis: B*, shape (d, r), orthonormal columns.
        head: w, shape (r,).
        transition: P, shape (n, n).
        rewards: R, shape (n,), the reward of each step that leaves the state.
        gain: J, reward per step.
    """

    features: Float[np.ndarray, "n d"]
    basis: Float[np.ndarray, "d r"]
    head: Float[np.ndarray, " r"]
    transition: Float[np.ndarray, "n n"]
    rewards: Float[np.ndarray, " n"]
    gain: float

    @property
    def weights(self) -> Float[np.ndarray, " d"]:
        """z* = B* w."""
        weights: np.ndarray = self.basis @ self.head
        return weights

    @property
    def values(self) -> Float[np.ndarray, " n"]:
        """V = Φ z*. Its mean is zero over the states equally weighted, not under the stationary distribution."""
        values: np.ndarray = self.features @ self.weights
        return values


def chain_features(sizes: ChainSizes, rng: np.random.Generator) -> Float[np.ndarray, "n d"]:
    """Random features with no constant in their span: every column, so every function, has mean zero over the
    states.

    ΦᵀΦ = c² I, with c ≥ 1 such that the largest row has norm one: at most d of the n − 1 dimensions are used,
    so the rows of an orthonormal Φ have norms below one.
    """
    columns = rng.standard_normal((sizes.states, sizes.feature_dim))
    orthonormal = np.linalg.qr(columns - columns.mean(axis=0))[0]
    centred: np.ndarray = orthonormal - orthonormal.mean(axis=0)
    centred /= np.sqrt((centred * centred).sum(axis=1).max())
    return centred


def chain_rows(states: int, rng: np.random.Generator) -> Float[np.ndarray, "n n"]:
    """Random transitions: Dirichlet rows with a few likely successors each, and a small uniform share."""
    rows = rng.dirichlet(np.full(states, 0.1), size=states)
    return 0.95 * rows + 0.05 / states


def own_reward_chain(
    features: Float[np.ndarray, "n d"], basis: Float[np.ndarray, "d r"], rng: np.random.Generator
) -> ChainInstance:
    """Builder (a): w, P and J are drawn, and R(s) = J + V(s) − (P V)(s)."""
    return chain_with_head(features, basis, own_head(features, basis.shape[1], rng), rng)


def own_head(features: Float[np.ndarray, "n d"], rank: int, rng: np.random.Generator) -> Float[np.ndarray, " r"]:
    """w of builder (a), in any direction."""
    return scaled_head(features, rng.standard_normal((rank,)))


def chain_with_head(
    features: Float[np.ndarray, "n d"],
    basis: Float[np.ndarray, "d r"],
    head: Float[np.ndarray, " r"],
    rng: np.random.Generator,
) -> ChainInstance:
    """Builder (a) with a given w: P and J are drawn, and R(s) = J + V(s) − (P V)(s)."""
    gain = float(rng.uniform(-1.0, 1.0))
    transition = chain_rows(len(features), rng)
    values = features @ (basis @ head)
    return ChainInstance(features, basis, head, transition, gain + values - transition @ values, gain)


def scaled_head(features: Float[np.ndarray, "n d"], direction: Float[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
    """The head of that direction whose V has variance one over the states: ‖w‖ = √n / c, where ΦᵀΦ = c² I."""
    column = float(np.linalg.norm(features[:, 0]))
    return direction * (math.sqrt(len(features)) / column / float(np.linalg.norm(direction)))


def common_reward_chain(
    features: Float[np.ndarray, "n d"],
    basis: Float[np.ndarray, "d r"],
    mean_head: Float[np.ndarray, " r"],
    rng: np.random.Generator,
) -> ChainInstance:
    """Builder (b): R is the fleet's, w = w⁰ + an own part, and P is tilted until V solves the Poisson
    equation.

    R = V⁰ / 2 with V⁰ = Φ B* w⁰. A row p_s must have p_s·V = V(s) − R(s) + J, which is possible where that
    lies between the extremes of V. J is drawn from the middle half of the range in which this holds in every
    state with a margin; heads for which there is no such range are drawn again.

    Raises:
        RuntimeError: no head was found in 1000 draws.
    """
    rewards = 0.5 * (features @ (basis @ mean_head))
    lacking = math.inf
    for _ in range(1000):
        own = rng.standard_normal(mean_head.shape)
        own *= 0.5 * np.linalg.norm(mean_head) / np.linalg.norm(own)
        head = scaled_head(features, mean_head + own)
        values = features @ (basis @ head)
        needed = values - rewards
        margin = 0.02 * float(np.ptp(values))
        least, most = values.min() + margin - needed.min(), values.max() - margin - needed.max()
        if least < most:
            gain = float(least + (most - least) * rng.uniform(0.25, 0.75))
            transition = tilted_rows(chain_rows(len(features), rng), values, needed + gain)
            return ChainInstance(features, basis, head, transition, rewards, gain)
        lacking = min(lacking, float(least - most) / float(np.ptp(values)))
    raise RuntimeError(
        "no head with a feasible chain in 1000 draws, for the common rewards do not fit the features: at best "
        f"{lacking:.2g} of the range of V is missing; take more states, or fewer features"
    )


def tilted_rows(
    rows: Float[np.ndarray, "n n"], values: Float[np.ndarray, " n"], means: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n n"]:
    """The rows p_s ∝ q_s exp(l_s V) with p_s·V = means(s).

    Of all rows with that mean they are the nearest to q_s in relative entropy.

    The mean of V grows with l_s, so l_s is found by bisection.

    Args:
        rows: q, positive, each row summing to one.
        values: V.
        means: what p_s·V shall be; strictly between the extremes of V.
    """
    logs = np.log(rows)
    low, high = np.full(len(rows), -1.0), np.full(len(rows), 1.0)
    while (short := _tilt(logs, values, high)[1] < means).any():
        high[short] *= 2.0
    while (over := _tilt(logs, values, low)[1] > means).any():
        low[over] *= 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = _tilt(logs, values, middle)[1] < means
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return _tilt(logs, values, 0.5 * (low + high))[0]


def _tilt(
    logs: Float[np.ndarray, "n n"], values: Float[np.ndarray, " n"], slopes: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, " n"]]:
    """The rows ∝ exp(log q_s + l_s V), and their means of V."""
    exponents = logs + slopes[:, None] * values
    tilted = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    tilted /= tilted.sum(axis=1, keepdims=True)
    return tilted, tilted @ values


class ChainEnv(FiniteChainEnv):
    """A Markov reward process: states are observations, the only action is 0, and leaving state s pays R(s)."""

    def __init__(self, transition: Float[np.ndarray, "n n"], rewards: Float[np.ndarray, " n"]) -> None:
        """P, shape (n, n), and R, shape (n,)."""
        super().__init__(transition, actions=1)
        self._rewards: list[float] = rewards.tolist()

    def step(self, action: SupportsIndex) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Moves on; the reward is that of the state left.

        Raises:
            ResetNeeded: the environment was never reset.
            ValueError: the action is not 0.
        """
        if action != 0:
            raise ValueError(f"action {action!r}: the only action is 0")
        left = self._state
        return self._moved(left), self._rewards[left], False, False, {}


def only_action(observation: int, generator: np.random.Generator) -> int:
    """0, the one action there is."""
    return 0


@dataclass(frozen=True, eq=False, slots=True)
class FleetPart:
    """What the chains of a fleet have in common.

    Attributes:
        features: Φ as a feature map.
        basis: B*, shape (d, r).
        mean_head: w⁰ of the common rewards, shape (r,); of no use where each agent has its own rewards.
    """

    features: TabularFeatures
    basis: Float[np.ndarray, "d r"]
    mean_head: Float[np.ndarray, " r"]


@lru_cache(maxsize=8)
def fleet_part(seed: int, sizes: ChainSizes) -> FleetPart:
    """Φ, B* and w⁰ of the fleet drawn from `seed`."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, _FLEET_TAG)))
    features = TabularFeatures(chain_features(sizes, rng))
    basis = random_basis(sizes.feature_dim, sizes.rank, rng)
    return FleetPart(features, basis, scaled_head(features.matrix, rng.standard_normal((sizes.rank,))))


def _generator_of(index: int, seed: int) -> np.random.Generator:
    """What is an agent's own is drawn from it. Raises ValueError: the index or the seed is negative."""
    if index < 0 or seed < 0:
        raise ValueError(f"chain {index} with seed {seed}: both must be 0 or more")
    return np.random.default_rng(np.random.SeedSequence((seed, index, _AGENT_TAG)))


def chain_instance(index: int, seed: int, sizes: ChainSizes, *, common_rewards: bool) -> ChainInstance:
    """Agent `index` of the fleet drawn from `seed`: builder (a), or (b) with common rewards.

    Raises:
        ValueError: the index or the seed is negative.
    """
    rng = _generator_of(index, seed)
    part = fleet_part(seed, sizes)
    if common_rewards:
        return common_reward_chain(part.features.matrix, part.basis, part.mean_head, rng)
    return own_reward_chain(part.features.matrix, part.basis, rng)


def weights_of(index: int, seed: int, sizes: ChainSizes, *, common_rewards: bool) -> Float[np.ndarray, " d"]:
    """z* of `chain_instance`, without its transitions where these do not tell."""
    if common_rewards:
        return chain_instance(index, seed, sizes, common_rewards=True).weights
    part = fleet_part(seed, sizes)
    head = own_head(part.features.matrix, sizes.rank, _generator_of(index, seed))
    return np.asarray(part.basis @ head)


def site_of(chain: ChainInstance, features: TabularFeatures, label: str) -> Site:
    """The chain as a site, with its truth."""
    return Site(
        env=ChainEnv(chain.transition, chain.rewards),
        features=features,
        policy=only_action,
        reference=references_of([chain])[0],
        label=label,
    )


def cumulative_rows(chain: ChainInstance) -> Float[np.ndarray, "n n1"]:
    """The cumulative probabilities of each row of P, without the last one, which is one."""
    return np.asarray(np.cumsum(chain.transition, axis=1)[:, :-1])


def references_of(chains: Sequence[ChainInstance]) -> ReferenceStack:
    """The truth of each."""
    stationary = stationary_distributions(np.stack([chain.transition for chain in chains]))
    covariances = [feature_covariance(chain.features, each) for chain, each in zip(chains, stationary, strict=True)]
    return ReferenceStack.of_arrays(
        np.array([chain.gain for chain in chains]),
        np.stack([chain.weights for chain in chains]),
        np.stack(covariances),
    )


def sites_of(
    chains: Sequence[ChainInstance],
    features: TabularFeatures,
    labels: Sequence[str],
    *,
    row_of: Callable[[int, int], Float[np.ndarray, " s1"]] | None = None,
) -> Sites:
    """The chains as sites that are stepped at once, with their truth; `row_of` is that of `FiniteChains`."""
    return Sites(
        chains=FiniteChains(
            np.stack([cumulative_rows(chain) for chain in chains]),
            rows=np.arange(len(features.matrix)),
            rewards=np.stack([chain.rewards for chain in chains]),
            first_row=None,
            row_of=row_of,
        ),
        features=features,
        references=references_of(chains),
        labels=tuple(labels),
    )


def make_workload(
    name: str, sizes: ChainSizes, *, common_rewards: bool = False, steps_per_round: int = 10
) -> Workload:
    """A fleet of synthetic chains, as large as you like.

    Args:
        name: short name, for people.
        sizes: n, d and r of the chains.
        common_rewards: builder (b) instead of (a).
        steps_per_round: L.
    """

    def make_site(index: int, seed: int) -> Site:
        chain = chain_instance(index, seed, sizes, common_rewards=common_rewards)
        return site_of(chain, fleet_part(seed, sizes).features, f"chain {index}")

    def make_fleet(indices: Sequence[int], seed: int) -> Sites:
        def chain(index: int) -> ChainInstance:
            return chain_instance(index, seed, sizes, common_rewards=common_rewards)

        def row_of(place: int, row: int) -> Float[np.ndarray, " s1"]:
            return np.asarray(cumulative_rows(chain(indices[place]))[row])

        features, labels = fleet_part(seed, sizes).features, [f"chain {index}" for index in indices]
        return sites_of([chain(index) for index in indices], features, labels, row_of=row_of)

    def fleet_basis(agents: int, rank: int, seed: int) -> Float[np.ndarray, "d r"]:
        weights = np.stack([weights_of(i, seed, sizes, common_rewards=common_rewards) for i in range(agents)])
        # Beyond the true rank every weight is zero, and the singular vectors would be arbitrary.
        return common_subspace(weights, min(rank, sizes.rank))[0]

    return Workload(
        make_site=make_site,
        name=name,
        rank=sizes.rank,
        steps_per_round=steps_per_round,
        fleet_basis=fleet_basis,
        make_fleet=make_fleet,
    )


workload = make_workload("synthetic", ChainSizes())
"""Builder (a): 50 states, d = 20, r = 3, each agent with its own transitions and rewards."""

common_reward_workload = make_workload("synthetic-common-reward", ChainSizes(), common_rewards=True)
"""Builder (b): 50 states, d = 20, r = 3, one reward function, each agent with its own transitions."""
