"""Estimates the rank of a fleet's value functions from simulated agents, with bootstrap intervals."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cospan.client.agent import default_agent_id
from cospan.client.environment.rollout import source_of
from cospan.client.environment.workload_loader import make_site
from cospan.client.workload import Workload
from cospan.core.aggregation.warm_start import HalfSums
from cospan.core.rank import AgentEstimate, FeatureMoments, Spectrum, measured
from cospan.core.specification import RunSpecification

RESAMPLES = 999
_CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False, slots=True)
class Ranking:
    """An estimate of the rank.

    Attributes:
        spectrum: of all agents.
        rank: the smallest r that holds `share` of the signal; 0 if no component exceeds the noise.
        share: as asked for.
        agreement: the share of the resamples of the agents that give the same rank.
        low: of the 95 % bootstrap interval of each component's share, shape (q,).
        high: of the same.
    """

    spectrum: Spectrum
    rank: int
    share: float
    agreement: float
    low: Float[np.ndarray, " q"]
    high: Float[np.ndarray, " q"]


@dataclass(frozen=True, eq=False, slots=True)
class FleetSamples:
    """What is estimated from the agents' transitions.

    Attributes:
        estimates: of each agent.
        system: E[φ (φ − φ')ᵀ], the mean over all agents, shape (d, d).
    """

    estimates: list[AgentEstimate]
    system: Float[np.ndarray, "d d"]


def simulate_agents(
    workload: Workload, spec: RunSpecification, on_agent: Callable[[int], None] = lambda _: None
) -> FleetSamples:
    """Simulates each agent for the rounds of the specification, one after the other.

    Raises:
        WorkloadBehaviourError: the workload broke its contract.
    """
    estimates: list[AgentEstimate] = []
    system = np.zeros((spec.feature_dim, spec.feature_dim))
    for index in range(spec.agents):
        site = make_site(workload, index, spec.seed)
        chain = source_of(site, name=default_agent_id(index), index=index, seed=spec.seed)
        halves = HalfSums.begun_in(0, spec.rounds, spec.feature_dim)
        moments = FeatureMoments.of_nothing(spec.feature_dim)
        with contextlib.closing(chain):
            for number in range(spec.rounds):
                walk = chain.advance(spec.method.steps_per_round)
                halves = halves.updated(walk.features, walk.features[:-1], walk.rewards, number)
                moments = moments.updated(walk.features[:-1])
        estimates.append(AgentEstimate.of(halves, moments))
        system += halves.joined.system / (halves.joined.steps * spec.agents)
        on_agent(index + 1)
    return FleetSamples(estimates, system)


def ranking_of(estimates: list[AgentEstimate], share: float) -> Ranking:
    """The spectrum, the rank, and the bootstrap over agents (Efron 1979; percentile intervals)."""
    from scipy.stats import bootstrap

    first, second = measured(estimates)
    spectrum = Spectrum.of(first, second)

    def resampled(picks: Int[np.ndarray, "*m n"], axis: int = -1) -> Float[np.ndarray, "q1 *m"]:
        """The shares of every resample, and below them its rank."""
        drawn = [Spectrum.of(first[:, pick], second[:, pick]) for pick in picks.reshape(-1, picks.shape[axis])]
        rows = np.stack([np.append(_padded(each.shares, len(first)), each.rank(share)) for each in drawn], axis=1)
        return rows.reshape(-1, *picks.shape[:-1])

    result = bootstrap(
        (np.arange(len(estimates)),),
        resampled,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    ranks, rank = result.bootstrap_distribution[-1], spectrum.rank(share)
    interval = result.confidence_interval
    size = len(spectrum.values)
    return Ranking(
        spectrum=spectrum,
        rank=rank,
        share=share,
        agreement=float(np.mean(ranks == rank)),
        low=np.asarray(interval.low[:size]),
        high=np.asarray(interval.high[:size]),
    )


def _padded(shares: Float[np.ndarray, " p"], size: int) -> Float[np.ndarray, " q"]:
    return np.append(shares, np.zeros(size - len(shares)))


def rank_document(spec: RunSpecification, found: Ranking) -> dict[str, Any]:
    """What `cospan rank --json` prints."""
    spectrum, above = found.spectrum, found.spectrum.above_noise
    held = np.cumsum(spectrum.shares)
    return {
        "workload": spec.workload,
        "agents": spec.agents,
        "rounds": spec.rounds,
        "steps_per_agent": spec.rounds * spec.method.steps_per_round,
        "seed": spec.seed,
        "feature_dim": spec.feature_dim,
        "share": found.share,
        "rank": found.rank or None,
        "agreement": found.agreement,
        "resamples": RESAMPLES,
        "above_noise": above,
        "noise": float(-spectrum.shares[-1]) if spectrum.noise else 0.0,
        "confidence": _CONFIDENCE,
        "components": [
            {
                "component": index + 1,
                "share": float(spectrum.shares[index]),
                "cumulative": float(held[index]) if index < above else None,
                "low": float(found.low[index]),
                "high": float(found.high[index]),
            }
            for index in range(len(spectrum.values))
        ],
    }
