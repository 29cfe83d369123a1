"""The chains of several agents: stepped at once where their workload can do that, else one after another.

Either way each agent sees what it would see alone, bit for bit.
"""

import logging
from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from cospan.client.environment.ownership import close_sites
from cospan.client.environment.plain_values import packed, unpacked
from cospan.client.environment.rollout import Chain, checked_features, origin_of_chain
from cospan.client.workload import FeatureMap, Site, Sites
from cospan.core.exact_solutions import ReferenceSolution
from cospan.core.learning.learner import Trajectory
from cospan.wire.errors import WorkloadBehaviourError

log = logging.getLogger(__name__)

NOT_SAVED = "the states of its environments were not saved"


@runtime_checkable
class GroupRollout(Protocol):
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

    @property
    def action_warnings(self) -> tuple[str, ...]:
        """What was wrong with the first action outside its space, of each chain that took one."""
        ...

    def advance(self, steps: int) -> Trajectory:
        """The next L steps of each.

        Raises:
            WorkloadBehaviourError: the environment, the policy or the features raised, or broke their contract.
        """
        ...

    def advance_those_that_can(self, steps: int) -> tuple[Trajectory, dict[int, WorkloadBehaviourError]]:
        """The same, with the trajectory of those chains alone that kept their contract.

        The others are for the caller to `drop` before the next step.

        Returns:
            The trajectory, and by their places why the others failed.

        Raises:
            WorkloadBehaviourError: the chain that failed cannot be identified, or all failed.
        """
        ...

    def drop(self, places: Collection[int]) -> None:
        """Removes the chains in these places, and closes their environments where that is possible."""
        ...

    def close(self) -> None:
        """Closes all environments; nothing is stepped any more."""
        ...

    def saved(self) -> tuple[str, list[np.ndarray]] | None:
        """Where the chains stand, as `Chain.saved` says it of one; None where that cannot be said of all."""
        ...

    def go_on(
        self, steps: int, reward_sums: Float[np.ndarray, " n"], saved: tuple[str, list[np.ndarray]] | None
    ) -> str:
        """As `Chain.go_on`, for all of them; the reason why they start over, or an empty text."""
        ...


def chain_group(
    sites: Sites | Sequence[Site], *, names: Sequence[str], indices: Sequence[int], seed: int, first_round: int = 0
) -> GroupRollout:
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
        BatchedRollouts(sites, names, origins)
        if isinstance(sites, Sites)
        else SequentialRollouts(sites, names, origins)
    )


class BatchedRollouts:
    """Those of a workload that steps many at once."""

    def __init__(self, sites: Sites, names: Sequence[str], origins: Sequence[tuple[int, int, int]]) -> None:
        """Prepares; nothing is reset before the first step."""
        self.features, self.references, self.labels = sites.features, sites.references, sites.labels
        self._sites, self._chains, self._origins = sites, sites.chains, origins
        self._names, self._name = tuple(names), f"{names[0]} to {names[-1]}"
        self._places = np.arange(len(origins))
        """Of the chains that have not been dropped; the others are stepped with them, and not looked at."""
        self.action_warnings: tuple[str, ...] = ()
        self._start_over(0, np.zeros(len(origins)))

    def _start_over(self, steps: int, reward_sums: Float[np.ndarray, " n"]) -> None:
        self.steps, self.reward_sums, self._begun, self._between_rounds = steps, reward_sums, False, True

    def _reset(self) -> None:
        seeds, generators = zip(*(origin_of_chain(*origin, self.steps) for origin in self._origins), strict=True)
        self._chains.reset(seeds, generators)
        self._begun = True

    def advance(self, steps: int) -> Trajectory:
        """See `GroupRollout`."""
        trajectory, failures = self.advance_those_that_can(steps)
        for failure in failures.values():
            raise failure
        return trajectory

    def advance_those_that_can(self, steps: int) -> tuple[Trajectory, dict[int, WorkloadBehaviourError]]:
        """See `GroupRollout`."""
        observations, rewards = self._played(steps)
        failures = self._bad_rewards(rewards)
        flat = observations.reshape(-1, *observations.shape[2:])
        try:
            features = checked_features(self.features, flat, self._name)
        except WorkloadBehaviourError as failure:
            failures |= self._bad_features(observations)
            sound = [place for place in range(len(self._places)) if place not in failures]
            if not failures or not sound:
                raise failure from None
            features = checked_features(self.features, np.concatenate(observations[sound]), self._name)
        else:
            sound = [place for place in range(len(self._places)) if place not in failures]
            features = features.reshape(len(self._places), -1, self.features.dim)[sound]
        if not sound:
            raise next(iter(failures.values()))
        self.steps += steps
        total = self.reward_sums
        for step in range(steps):  # in the order in which one alone sums them
            total = total + rewards[:, step]
        self.reward_sums = total
        self._between_rounds = True
        played = features.reshape(len(sound), steps + 1, self.features.dim)
        return Trajectory(played, rewards[sound]), failures

    def _played(self, steps: int) -> tuple[np.ndarray, Float[np.ndarray, "n L"]]:
        """Observations and rewards of the chains that have not been dropped."""
        self._between_rounds = False
        try:
            if not self._begun:
                self._reset()
            observations, rewards = self._chains.advance(steps)
        except (WorkloadBehaviourError, KeyboardInterrupt):
            raise
        except BaseException as failure:
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
        if len(self._places) < agents:
            return observations[self._places], rewards[self._places]
        return observations, rewards

    def _bad_rewards(self, rewards: Float[np.ndarray, "n L"]) -> dict[int, WorkloadBehaviourError]:
        found: dict[int, WorkloadBehaviourError] = {}
        for place, step in np.argwhere(~np.isfinite(rewards)).tolist():
            if place not in found:
                name, reward = self._names[self._places[place]], rewards[place, step]
                found[place] = WorkloadBehaviourError(
                    f"the environment of {name} gave the reward {reward} in step {self.steps + step}; "
                    "it must be finite"
                )
        return found

    def _bad_features(self, observations: np.ndarray) -> dict[int, WorkloadBehaviourError]:
        found = {}
        for place, own in enumerate(observations):
            try:
                checked_features(self.features, own, self._names[self._places[place]])
            except WorkloadBehaviourError as failure:
                found[place] = failure
        return found

    def drop(self, places: Collection[int]) -> None:
        """See `GroupRollout`. The environments are stepped on, for the others are stepped with them."""
        keep = [place for place in range(len(self._places)) if place not in places]
        self._places, self.reward_sums = self._places[keep], self.reward_sums[keep]
        self.references = tuple(self.references[place] for place in keep)
        self.labels = tuple(self.labels[place] for place in keep)

    def close(self) -> None:
        """See `GroupRollout`."""
        close_sites(self._sites)

    def saved(self) -> tuple[str, list[np.ndarray]] | None:
        """See `GroupRollout`."""
        if not self._begun or not self._between_rounds:
            return None
        try:
            state = self._chains.save_state()
            return None if state is None else packed(dict(state))
        except KeyboardInterrupt:
            raise
        except BaseException as failure:  # of the user's code; what was learnt can be kept all the same
            log.error(
                "the environments of %s cannot save their states (%s: %s); started again, their chains start over",
                *(self._name, type(failure).__name__, failure),
            )
            return None

    def go_on(
        self, steps: int, reward_sums: Float[np.ndarray, " n"], saved: tuple[str, list[np.ndarray]] | None
    ) -> str:
        """See `GroupRollout`."""
        self._start_over(steps, reward_sums)
        if saved is None:
            return NOT_SAVED
        try:
            state = unpacked(*saved)
            self._reset()
            self._chains.load_state(state)
        except KeyboardInterrupt:
            raise
        except BaseException as failure:  # of the user's code, or of one of another version
            self._start_over(steps, reward_sums)
            return f"the states of its environments cannot be loaded ({type(failure).__name__}: {failure})"
        return ""


class SequentialRollouts:
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

    @property
    def action_warnings(self) -> tuple[str, ...]:
        """See `GroupRollout`."""
        return tuple(chain.action_warning for chain in self._chains if chain.action_warning)

    def advance(self, steps: int) -> Trajectory:
        """See `GroupRollout`."""
        return _stacked([chain.advance(steps) for chain in self._chains])

    def advance_those_that_can(self, steps: int) -> tuple[Trajectory, dict[int, WorkloadBehaviourError]]:
        """See `GroupRollout`."""
        played, failures = [], {}
        for place, chain in enumerate(self._chains):
            try:
                played.append(chain.advance(steps))
            except WorkloadBehaviourError as failure:
                failures[place] = failure
        if not played:
            raise next(iter(failures.values()))
        return _stacked(played), failures

    def drop(self, places: Collection[int]) -> None:
        """See `GroupRollout`."""
        for place in places:
            self._chains[place].close()
        keep = [place for place in range(len(self._chains)) if place not in places]
        self._chains = [self._chains[place] for place in keep]
        self.references = tuple(self.references[place] for place in keep)
        self.labels = tuple(self.labels[place] for place in keep)

    def close(self) -> None:
        """See `GroupRollout`."""
        for chain in self._chains:
            chain.close()

    def saved(self) -> tuple[str, list[np.ndarray]] | None:
        """See `GroupRollout`."""
        parts = [chain.saved() for chain in self._chains]
        texts = [part[0] for part in parts if part is not None]
        if len(texts) < len(parts):
            return None
        arrays = [part[1] for part in parts if part is not None]
        return packed({"texts": texts, "arrays": arrays})

    def go_on(
        self, steps: int, reward_sums: Float[np.ndarray, " n"], saved: tuple[str, list[np.ndarray]] | None
    ) -> str:
        """See `GroupRollout`. Where one chain starts over the others still continue."""
        state = {"texts": [], "arrays": []} if saved is None else unpacked(*saved)
        known = list(zip(state["texts"], state["arrays"], strict=True))
        parts = known if len(known) == len(self._chains) else [None] * len(self._chains)
        words = [
            chain.go_on(steps, float(total), part)
            for chain, total, part in zip(self._chains, reward_sums, parts, strict=True)
        ]
        return NOT_SAVED if saved is None else next(filter(None, words), "")


def _stacked(played: Sequence[Trajectory]) -> Trajectory:
    return Trajectory(
        np.stack([trajectory.features for trajectory in played]),
        np.stack([trajectory.rewards for trajectory in played]),
    )
