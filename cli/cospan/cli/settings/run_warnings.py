"""Warnings before a run starts: one sentence each on standard error."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from jaxtyping import Float

from cospan.client.environment.rollout import checked_features
from cospan.client.workload import AnySite, Site
from cospan.core.learning.feature_span import FeatureSpan, smallest_eigenvalue
from cospan.core.specification import RunSpecification
from cospan.wire.console import say
from cospan.wire.errors import WorkloadBehaviourError

MOST_FEATURES = 128
"""With more of them the check would take longer than 0.2 s."""
_STATES = 2000
_STATES_PER_FEATURE = 40
_MOST_LISTED = 10_000
_FEW_AGENTS = 2


def advise(sentences: Sequence[str]) -> None:
    """Prints warnings."""
    for sentence in sentences:
        say(f"cospan: warning: {sentence}")


def of_rank(spec: RunSpecification) -> list[str]:
    """Warns of ranks outside the paper's analysis."""
    d, r = spec.feature_dim, spec.rank
    if d >= 2 * r:
        return []
    return [
        f"feature_dim is {d} and rank is {r}; the method's analysis needs d ≥ 2r, here {2 * r}: take a smaller "
        "rank, or each agent might as well learn alone"
    ]


def of_agents(agents: int) -> list[str]:
    """Warns of fleets too small to share a subspace."""
    if agents > _FEW_AGENTS:
        return []
    shares = "one agent has no other to share a subspace with" if agents == 1 else "two agents share little data"
    return [f"agents is {agents}; {shares}, so the joint method gains little over learning alone: run 8 or more"]


def of_features(spec: RunSpecification, site: AnySite, system: Float[np.ndarray, "d d"] | None = None) -> list[str]:
    """Warns of dependent features, judged by states drawn from the observation space.

    No environment is stepped, because a site may be a real system.

    Args:
        spec: of the run.
        site: one of its sites.
        system: E[φ (φ − φ')ᵀ], if chains have been simulated.

    Raises:
        WorkloadBehaviourError: a constant function is certainly in the span of the features.
    """
    if spec.feature_dim > MOST_FEATURES:
        return []
    drawn = _drawn(site) if isinstance(site, Site) else None
    if drawn is None:
        return []
    span = FeatureSpan.of(drawn)
    eigenvalue = ""
    if system is not None:
        eigenvalue = f", and the smallest eigenvalue of -(A + Aᵀ)/2 is {smallest_eigenvalue(system):.2g}"
    if span.has_constant:
        raise WorkloadBehaviourError(
            f"the features of {spec.workload!r} have a constant function in their span: over {span.states} states "
            f"they give 1 up to {span.constant_residual:.2g}{eigenvalue}; leave out one of them, as the indicator "
            "of one state, or centre them"
        )
    if span.dependent:
        return [
            f"the features of {spec.workload!r} depend on each other: over {span.states} states {span.used} of "
            f"them have rank {span.rank}{eigenvalue}; weights are not unique then: leave out {span.dependent}"
        ]
    return []


def _drawn(site: Site) -> Float[np.ndarray, "n d"] | None:
    """Features of all states of a small finite space, else of random states; None if that is not possible."""
    space = copy.deepcopy(site.env.observation_space)  # drawing from the environment's own would change its draws
    count = max(_STATES, _STATES_PER_FEATURE * site.features.dim)
    try:
        observations: list[Any]
        if isinstance(space, Discrete) and space.n <= _MOST_LISTED:
            observations = [int(space.start + index) for index in range(space.n)]
        else:
            space.seed(0)
            observations = [space.sample() for _ in range(count)]
        return checked_features(site.features, observations, "the check")
    except Exception:  # the space may be wider than the map: what is wrong on the chain is found there
        return None
