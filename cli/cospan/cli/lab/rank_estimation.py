"""Estimates the rank of a fleet's value functions from simulated agents, with bootstrap intervals."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cospan.client.agent import default_agent_id
from cospan.client.environment.rollout import source_of
from cospan.client.environment.workload_loader import make_site
from cospan.client.workload import Site, Workload
from cospan.core.aggregation.warm_start import HalfSums
from cospan.core.learning.learner_state import Trajectory
from cospan.core.quality.within import within_covariance
from cospan.core.rank import AgentEstimate, FeatureMoments, Spectrum, measured
from cospan.core.specification import RunSpecification

RESAMPLES = 999
_CONFIDENCE = 0.95
_STATES, _STATES_PER_FEATURE = 2000, 20
"""Most states of an agent of which covariances within equal parts are taken: the larger of the two."""
_MOST_TOGETHER = 8
"""Parts of an observation up to which all of them but one are tried together."""


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
        overall: the rank over all states, where the shares are of differences within equal exogenous parts; None
            where they are of all states. `rank` is not below it.
        hidden: where they are not, the sets of parts within which more dimensions are needed; most first.
    """

    spectrum: Spectrum
    rank: int
    share: float
    agreement: float
    low: Float[np.ndarray, " q"]
    high: Float[np.ndarray, " q"]
    overall: int | None = None
    hidden: tuple["HiddenRank", ...] = ()


@dataclass(frozen=True, slots=True)
class HiddenRank:
    """What the rank would be if some parts of the observation were exogenous.

    Attributes:
        parts: their name.
        rank: the smallest r that holds the share of the signal within equal parts.
        explained: the share of the values' variance that the parts explain, the median over the agents.
    """

    parts: str
    rank: int
    explained: float


@dataclass(frozen=True, eq=False, slots=True)
class FleetSamples:
    """What is estimated from the agents' transitions.

    Attributes:
        estimates: of each agent, measured within equal exogenous parts where the workload declares them.
        system: E[φ (φ − φ')ᵀ], the mean over all agents, shape (d, d).
        overall: the same over all states, where the workload declares them; else nothing.
        suspects: where it does not, for each set of parts of the observation that might be exogenous: its name, and
            the covariance of each agent's features within equal parts.
    """

    estimates: list[AgentEstimate]
    system: Float[np.ndarray, "d d"]
    overall: list[AgentEstimate] = field(default_factory=list)
    suspects: Mapping[str, list[Float[np.ndarray, "d d"]]] = field(default_factory=dict)


def simulate_agents(
    workload: Workload, spec: RunSpecification, on_agent: Callable[[int], None] = lambda _: None
) -> FleetSamples:
    """Simulates each agent for the rounds of the specification, one after the other.

    Raises:
        WorkloadBehaviourError: the workload broke its contract.
    """
    estimates: list[AgentEstimate] = []
    overall: list[AgentEstimate] = []
    system = np.zeros((spec.feature_dim, spec.feature_dim))
    suspects: dict[str, list[Float[np.ndarray, "d d"]]] = {}
    for index in range(spec.agents):
        site = make_site(workload, index, spec.seed)
        chain = source_of(site, name=default_agent_id(index), index=index, seed=spec.seed)
        halves = HalfSums.begun_in(0, spec.rounds, spec.feature_dim)
        moments, seen = FeatureMoments.of_nothing(spec.feature_dim), _Seen(spec.feature_dim)
        with contextlib.closing(chain):
            for number in range(spec.rounds):
                walk = chain.advance(spec.method.steps_per_round)
                halves = halves.updated(walk.features, walk.features[:-1], walk.rewards, number)
                moments = moments.updated(walk.features[:-1])
                seen.add(walk)
        estimate = AgentEstimate.of(halves, moments)
        if isinstance(site, Site) and site.exogenous is not None:
            overall.append(estimate)
            estimate = replace(estimate, covariance=seen.within())
        else:
            for name, covariance in seen.suspects(getattr(chain, "part_names", ())).items():
                suspects.setdefault(name, []).append(covariance)
        estimates.append(estimate)
        system += halves.joined.system / (halves.joined.steps * spec.agents)
        on_agent(index + 1)
    known = {name: found for name, found in suspects.items() if len(found) == len(estimates)}
    return FleetSamples(estimates, system, overall, known)


class _Seen:
    """States of one agent, every second round of them dropped where they are many."""

    def __init__(self, feature_dim: int) -> None:
        self._most = max(_STATES, _STATES_PER_FEATURE * feature_dim)
        self._rounds: list[Trajectory] = []
        self._number, self._stride = 0, 1

    def add(self, walk: Trajectory) -> None:
        if self._number % self._stride == 0:
            self._rounds.append(walk)
        self._number += 1
        if len(self._rounds) > 2 and len(self._rounds) * len(walk.rewards) > self._most:
            self._rounds, self._stride = self._rounds[::2], 2 * self._stride

    @property
    def _features(self) -> Float[np.ndarray, "m d"]:
        return np.concatenate([walk.features[:-1] for walk in self._rounds])

    def within(self) -> Float[np.ndarray, "d d"]:
        """C_w of the exogenous parts."""
        parts = [walk.exogenous[:-1] for walk in self._rounds if walk.exogenous is not None]
        return within_covariance(self._features, np.concatenate(parts))

    def suspects(self, names: Sequence[str]) -> dict[str, Float[np.ndarray, "d d"]]:
        """C_w of each part of the observation, and of all parts but one; nothing where there is one part alone."""
        known = [walk.parts[:-1] for walk in self._rounds if walk.parts is not None]
        if len(known) < len(self._rounds) or len(names) < 2:
            return {}
        parts, features, everything = np.concatenate(known), self._features, range(len(names))
        chosen = {name: [place] for place, name in enumerate(names)}
        if 2 < len(names) <= _MOST_TOGETHER:
            chosen |= {
                f"all but {name}": [each for each in everything if each != place]
                for place, name in enumerate(names)
            }
        return {name: within_covariance(features, parts[:, places]) for name, places in chosen.items()}


def ranking_of(samples: FleetSamples, share: float) -> Ranking:
    """The spectrum, the rank, and the bootstrap over agents (Efron 1979; percentile intervals).

    Where parts are declared exogenous the rank is that within equal parts, and not below that over all states:
    where few data leave only noise within them, the smaller rank would be of the noise.
    """
    from scipy.stats import bootstrap

    estimates = samples.estimates
    overall = Spectrum.of(*measured(samples.overall)).rank(share) if samples.overall else None
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
    least = overall or 0
    ranks, rank = np.maximum(result.bootstrap_distribution[-1], least), max(spectrum.rank(share), least)
    interval = result.confidence_interval
    size = len(spectrum.values)
    return Ranking(
        spectrum=spectrum,
        rank=rank,
        share=share,
        agreement=float(np.mean(ranks == rank)),
        low=np.asarray(interval.low[:size]),
        high=np.asarray(interval.high[:size]),
        overall=overall,
        hidden=_hidden_ranks(samples, rank, share),
    )


def _hidden_ranks(samples: FleetSamples, rank: int, share: float) -> tuple[HiddenRank, ...]:
    """The sets of parts of the observation within which the share takes a larger rank than this; largest first.

    A part whose equal values leave no difference above the noise takes none.
    """
    found = []
    for name, covariances in samples.suspects.items():
        within = [
            replace(estimate, covariance=covariance)
            for estimate, covariance in zip(samples.estimates, covariances, strict=True)
        ]
        needed = Spectrum.of(*measured(within)).rank(share)
        if needed > rank:
            explained = [
                1.0 - one.cross_variance / whole.cross_variance
                for one, whole in zip(within, samples.estimates, strict=True)
                if whole.cross_variance > 0.0
            ]
            found.append(HiddenRank(name, needed, float(np.clip(np.median(explained or [0.0]), 0.0, 1.0))))
    return tuple(sorted(found, key=lambda each: -each.rank))


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
        "within_exogenous": found.overall is not None,
        "rank_over_all_states": found.overall or (found.rank or None),
        "hidden": [asdict(each) for each in found.hidden],
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
