"""Synthetic fleets that experiments vary: agents outside the subspace, noisy or heterogeneous agents."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float

from cospan.client.environment.workload_loader import load_workload
from cospan.client.workload import Site, Workload
from cospan.client.workloads.synthetic import (
    ChainSizes,
    chain_with_head,
    fleet_part,
    own_reward_chain,
    scaled_head,
    site_of,
)

SIZES = ChainSizes()
"""50 states, d = 20, r = 3, as the workload `synthetic`."""
_TAG = 0x66616D69  # "fami": keeps these draws apart from others of the same seed


class NoisyRewards(gymnasium.RewardWrapper[Any, Any]):
    """Adds a Gaussian of mean zero to each reward."""

    def __init__(self, env: gymnasium.Env[Any, Any], deviation: float) -> None:
        """`deviation`: standard deviation of the noise, in units of the reward."""
        super().__init__(env)
        self._deviation = deviation

    def reward(self, reward: Any) -> float:
        """The reward and its noise."""
        return float(reward) + self._deviation * float(self.np_random.standard_normal())


def _rng(index: int, seed: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((seed, index, _TAG)))


def misaligned(
    agents: int, share: float, noise: float, loudest: float, *, second_rank: int | None = None
) -> Workload:
    """A fleet of which the last share · n agents have weights orthogonal to B*.

    The aligned ones are the same for every share.

    Args:
        agents: n.
        share: of misaligned agents, 0 to 1.
        noise: standard deviation of the reward noise, in standard deviations of the agent's own reward.
        loudest: noise of agent 0 as a multiple of the others'.
        second_rank: dimension of a subspace that the misaligned agents share; None where they share nothing.
    """
    aligned = agents - round(share * agents)

    def make_site(index: int, seed: int) -> Site:
        part = fleet_part(seed, SIZES)
        features, rng = part.features.matrix, _rng(index, seed)
        inside = own_reward_chain(features, part.basis, rng)
        chain = (
            inside if index < aligned else own_reward_chain(features, _complement(part.basis)[:, :second_rank], rng)
        )
        site = site_of(chain, part.features, f"chain {index}")
        deviation = noise * (loudest if index == 0 else 1.0) * float(np.std(chain.rewards))
        return replace(site, env=NoisyRewards(site.env, deviation))

    return _workload("misaligned", make_site)


def _workload(name: str, make_site: Callable[[int, int], Site], sizes: ChainSizes = SIZES) -> Workload:
    return Workload(
        make_site=make_site,
        name=name,
        rank=sizes.rank,
        steps_per_round=10,
        fleet_basis=lambda _agents, _rank, seed: fleet_part(seed, sizes).basis,
    )


def _complement(basis: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "d q"]:
    """A basis of everything orthogonal to a subspace."""
    complete: np.ndarray = np.linalg.qr(basis, mode="complete")[0]
    return complete[:, basis.shape[1] :]


def beginning_at(name: str, first: int) -> Workload:
    """A workload whose site 0 is that of another index: so that small fleets are not always of the same sites."""
    workload = load_workload(name)
    return replace(workload, make_site=lambda index, seed: workload.make_site(first + index, seed), make_fleet=None)


def heterogeneous(difference: float) -> Workload:
    """A fleet whose heads are one common head plus `difference` times an own one of the same length.

    With 0 all agents have one value function, though each has its own transitions and rewards.
    """

    def make_site(index: int, seed: int) -> Site:
        part = fleet_part(seed, SIZES)
        features, rng = part.features.matrix, _rng(index, seed)
        own = rng.standard_normal(SIZES.rank)
        own *= difference * np.linalg.norm(part.mean_head) / np.linalg.norm(own)
        chain = chain_with_head(features, part.basis, scaled_head(features, part.mean_head + own), rng)
        return site_of(chain, part.features, f"chain {index}")

    return _workload("heterogeneous", make_site)


def partly_shared(feature_dim: int, outside: float) -> Workload:
    """A fleet whose value functions lie in a shared subspace of dimension 3 but for a share of their variance.

    Args:
        feature_dim: d, above 3.
        outside: share of the variance of V, states equally weighted, that is own and lies in all d dimensions;
            0 to 1. With 1 nothing is shared.
    """
    sizes = ChainSizes(states=max(SIZES.states, 2 * feature_dim), feature_dim=feature_dim)

    def make_site(index: int, seed: int) -> Site:
        part, rng = fleet_part(seed, sizes), _rng(index, seed)
        inside = part.basis @ rng.standard_normal(sizes.rank)
        own = rng.standard_normal(feature_dim)
        mixed = np.sqrt(1.0 - outside) * inside / np.linalg.norm(inside)
        mixed += np.sqrt(outside) * own / np.linalg.norm(own)
        features = part.features.matrix
        chain = chain_with_head(features, np.eye(feature_dim), scaled_head(features, mixed), rng)
        return site_of(chain, part.features, f"chain {index}")

    return _workload("partly shared", make_site, sizes)
