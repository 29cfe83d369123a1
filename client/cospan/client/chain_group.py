"""The chains of several agents: stepped at once where their workload can do that, else one after another.

Either way each agent sees what it would see alone, bit for bit.
"""

import logging
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from cospan.client.chain import Chain, checked_features, origin_of_chain
from cospan.client.plain_values import packed, unpacked
from cospan.client.workload import FeatureMap, Site, Sites
from cospan.core.group_learner import GroupTrajectory
from cospan.core.targets import ReferenceSolution
from cospan.wire.errors import WorkloadBehaviourError

log = logging.getLogger(__name__)

NOT_SAVED = "the states of its environments were not saved"


@runtime_checkable
class ChainGroup(Protocol):
    """Several agents' chains, all of which have taken the same number of steps."""

    @property
    def features(self) -> FeatureMap:
        """Those that all share."""
        ...

    @property
    def references(self) -> tuple[ReferenceSolution | None, ...]:
        """What is known to be true of each."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """What people call each site."""
        ...

    @property
    def steps(self) -> int:
        """That each has taken."""
        ...

    @property
    def reward_sums(self) -> Float[np.ndarray, " n"]:
        """Of all rewards of each so far."""
        ...

    def advance(self, steps: int) -> GroupTrajectory:
        """The next L steps of each.

        Raises:
            WorkloadBehaviourError: the environment, the policy or the features raised, or broke their contract.
        """
        ...

    def saved(self) -> tuple[str, list[np.ndarray]] | None:
        """Where the chains stand, as `Chain.saved` says it of one; None where that cannot be said of all."""
        ...

    def go_on(
        self, steps: int, reward_sums: Float[np.ndarray, " n"], saved: tuple[str, list[np.ndarray]] | None
    ) -> str:
        """As `Chain.go_on`, for all of them; why they begin anew, or empty."""
        ...


def chain_group(
    sites: Sites | Sequence[Site], *, names: Sequence[str], indices: Sequence[int], seed: int, first_round: int = 0
) -> ChainGroup:
    """The chains of these sites, which have yet to begin.

    Args:
        sites: of one workload; stepped at once where they are `Sites`.
        names: of the agents, for error messages.
        indices: of their sites.
        seed: of the run.
        first_round: the round in which they begin; see `Chain`.
    """
    origins = [(seed, index, first_round) for index in indices]
    return (
        TogetherChains(sites, names, origins) if isinstance(sites, Sites) else OneByOneChains(sites, names, origins)
    )


class TogetherChains:
    """Those of a workload that steps many at once."""

    def __init__(self, sites: Sites, names: Sequence[str], origins: Sequence[tuple[int, int, int]]) -> None:
        """Prepares; nothing is reset before the first step."""
        self.features, self.references, self.labels = sites.features, sites.references, sites.labels
        self._chains, self._origins = sites.chains, origins
        self._name = f"{names[0]} to {names[-1]}"
        self._begin_anew(0, np.zeros(len(origins)))

    def _begin_anew(self, steps: int, reward_sums: Float[np.ndarray, " n"]) -> None:
        self.steps, self.reward_sums, self._begun, self._between_rounds = steps, reward_sums, False, True

    def _reset(self) -> None:
        seeds, generators = zip(*(origin_of_chain(*origin, self.steps) for origin in self._origins), strict=True)
        self._chains.reset(seeds, generators)
        self._begun = True

    def advance(self, steps: int) -> GroupTrajectory:
        """See `ChainGroup`."""
        self._between_rounds = False
        try:
            if not self._begun:
                self._reset()
            observations, rewards = self._chains.advance(steps)
        except WorkloadBehaviourError:
            raise
        except Exception as failure:
            raise WorkloadBehaviourError(
                f"the environments or policies of {self._name} raised {type(failure).__name__} after step "
                f"{self.steps}: {failure}"
            ) from failure
        agents = len(self._origins)
        if observations.shape[:2] != (agents, steps + 1) or rewards.shape != (agents, steps):
            raise WorkloadBehaviourError(
                f"the chains of {self._name} gave observations of shape {observations.shape} and rewards of shape "
                f"{rewards.shape}; for {steps} steps they must begin with {(agents, steps + 1)}, and be "
                f"{(agents, steps)}"
            )
        self._check(rewards)
        flat = observations.reshape(agents * (steps + 1), *observations.shape[2:])
        features = checked_features(self.features, flat, self._name)
        self.steps += steps
        total = self.reward_sums
        for step in range(steps):  # in the order in which one alone sums them
            total = total + rewards[:, step]
        self.reward_sums = total
        self._between_rounds = True
        return GroupTrajectory(features.reshape(agents, steps + 1, self.features.dim), rewards)

    def _check(self, rewards: Float[np.ndarray, "n L"]) -> None:
        if not np.isfinite(rewards).all():
            which, step = np.argwhere(~np.isfinite(rewards))[0]
            raise WorkloadBehaviourError(
                f"the environment of site {self._origins[which][1]} gave the reward {rewards[which, step]} in step "
                f"{self.steps + step}; it must be finite"
            )

    def saved(self) -> tuple[str, list[np.ndarray]] | None:
        """See `ChainGroup`."""
        if not self._begun or not self._between_rounds:
            return None
        try:
            state = self._chains.save_state()
            return None if state is None else packed(dict(state))
        except Exception as failure:  # of the user's code; what was learnt can be kept all the same
            log.error(
                "the environments of %s cannot save their states (%s: %s); started again, their chains begin anew",
                *(self._name, type(failure).__name__, failure),
            )
            return None

    def go_on(
        self, steps: int, reward_sums: Float[np.ndarray, " n"], saved: tuple[str, list[np.ndarray]] | None
    ) -> str:
        """See `ChainGroup`."""
        self._begin_anew(steps, reward_sums)
        if saved is None:
            return NOT_SAVED
        try:
            state = unpacked(*saved)
            self._reset()
            self._chains.load_state(state)
        except Exception as failure:  # of the user's code, or of one of another version
            self._begin_anew(steps, reward_sums)
            return f"the states of its environments cannot be loaded ({type(failure).__name__}: {failure})"
        return ""


class OneByOneChains:
    """Those of any workload: a `Chain` for each agent."""

    def __init__(
        self, sites: Sequence[Site], names: Sequence[str], origins: Sequence[tuple[int, int, int]]
    ) -> None:
        """Prepares; nothing is reset before the first step."""
        self.features = sites[0].features
        self.references = tuple(site.reference for site in sites)
        self.labels = tuple(site.label for site in sites)
        self._chains = [
            Chain(site, name=name, index=index, seed=seed, first_round=first_round)
            for site, name, (seed, index, first_round) in zip(sites, names, origins, strict=True)
        ]

    @property
    def steps(self) -> int:
        """Of each."""
        return self._chains[0].steps

    @property
    def reward_sums(self) -> Float[np.ndarray, " n"]:
        """Of each."""
        return np.array([chain.reward_sum for chain in self._chains])

    def advance(self, steps: int) -> GroupTrajectory:
        """See `ChainGroup`."""
        played = [chain.advance(steps) for chain in self._chains]
        return GroupTrajectory(
            np.stack([trajectory.features for trajectory in played]),
            np.stack([trajectory.rewards for trajectory in played]),
        )

    def saved(self) -> tuple[str, list[np.ndarray]] | None:
        """See `ChainGroup`."""
        parts = [chain.saved() for chain in self._chains]
        texts = [part[0] for part in parts if part is not None]
        if len(texts) < len(parts):
            return None
        arrays = [part[1] for part in parts if part is not None]
        return packed({"texts": texts, "arrays": arrays})

    def go_on(
        self, steps: int, reward_sums: Float[np.ndarray, " n"], saved: tuple[str, list[np.ndarray]] | None
    ) -> str:
        """See `ChainGroup`. Where one chain begins anew the others go on all the same."""
        state = {"texts": [], "arrays": []} if saved is None else unpacked(*saved)
        known = list(zip(state["texts"], state["arrays"], strict=True))
        parts = known if len(known) == len(self._chains) else [None] * len(self._chains)
        words = [
            chain.go_on(steps, float(total), part)
            for chain, total, part in zip(self._chains, reward_sums, parts, strict=True)
        ]
        return NOT_SAVED if saved is None else next(filter(None, words), "")
