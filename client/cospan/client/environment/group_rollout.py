"""The chains of several agents: stepped at once where their workload can do that, else one after another.

Either way each agent sees what it would see alone, bit for bit.
"""

import logging
from collections.abc import Collection, Sequence
from typing import TypeAlias, overload

import numpy as np
from jaxtyping import Float

from cospan.client.environment.observation_parts import exogenous_of, part_names, parts_of
from cospan.client.environment.ownership import close_sites
from cospan.client.environment.plain_values import SavedState, packed, unpacked
from cospan.client.environment.rollout import (
    CANNOT_SAVE,
    Chain,
    checked_features,
    environment_seeds_of,
    policy_generator_of,
)
from cospan.client.features import TabularFeatures
from cospan.client.workload import FeatureMap, Site, Sites, Workload
from cospan.core.exact_solutions import ReferenceSolution
from cospan.core.history.feature_rows import TableRows
from cospan.core.learning.learner_state import Trajectory
from cospan.core.specification import RunSpecification
from cospan.wire.errors import WorkloadBehaviourError

log = logging.getLogger(__name__)

NOT_SAVED = "the states of its environments were not saved"


def chain_group(
    sites: Sites | Sequence[Site], *, names: Sequence[str], indices: Sequence[int], seed: int, first_round: int = 0
) -> "GroupRollout":
    """The chains of these sites, which have yet to begin.

    Args:
        sites: of one workload; stepped at once where they are `Sites`.
        names: of the agents, for error messages.
        indices: of their sites.
        seed: of the run.
        first_round: the round in which they begin; see `Chain`.
    """
    origins = [(seed, index, first_round) for index in indices]
    if isinstance(sites, Sites):
        return BatchedRollouts(sites, names, origins)
    return SequentialRollouts(sites, names, origins)


def keeps_numbers(workload: Workload, features: FeatureMap, specification: RunSpecification) -> bool:
    """Whether agents of a group keep the numbers of states in place of features: those that are stepped at once."""
    is_table = isinstance(features, TabularFeatures)
    return is_table and workload.make_fleet is not None and not specification.improve


class BatchedRollouts:
    """The chains of several agents, all of which have taken the same number of steps; stepped at once.

    Attributes:
        features: the feature map that all share.
        references: the reference solution of each, or None.
        labels: of the sites.
        steps: of each chain so far.
        reward_sums: the sum of all rewards of each chain so far.
        action_warnings: for each chain that took an action outside its space, what was wrong with the first.
        part_names: see `Chain.part_names`.
    """

    def __init__(self, sites: Sites, names: Sequence[str], origins: Sequence[tuple[int, int, int]]) -> None:
        """Prepares; nothing is reset before the first step."""
        self.features, self.labels = sites.features, sites.labels
        self.references: Sequence[ReferenceSolution | None] = sites.references
        self._sites, self._chains, self._origins = sites, sites.chains, origins
        self._names, self._name = tuple(names), f"{names[0]} to {names[-1]}"
        self._places = np.arange(len(origins))
        """Of the chains that have not been dropped; the others are stepped with them, and not looked at."""
        self.action_warnings: tuple[str, ...] = ()
        self.part_names: tuple[str, ...] = ()
        self._start_over(0, np.zeros(len(origins)))

    def _start_over(self, steps: int, reward_sums: Float[np.ndarray, " n"]) -> None:
        self.steps, self.reward_sums, self._begun, self._between_rounds = steps, reward_sums, False, True

    def _reset(self) -> None:
        seed, _, first_round = self._origins[0]  # all have these
        seeds = environment_seeds_of(seed, [index for _, index, _ in self._origins], first_round, self.steps)
        self._chains.reset(seeds, _PolicyGenerators(self._origins, self.steps))
        self._begun = True

    def advance(self, steps: int) -> Trajectory:
        """The next L steps of each.

        Raises:
            WorkloadBehaviourError: the environment, the policy or the features raised, or broke their contract.
        """
        trajectory, failures = self.advance_those_that_can(steps)
        for failure in failures.values():
            raise failure
        return trajectory

    def advance_those_that_can(self, steps: int) -> tuple[Trajectory, dict[int, WorkloadBehaviourError]]:
        """The same, with the trajectory of the chains that kept their contract.

        Returns:
            The trajectory, and the failures of the other chains by place; the caller drops these chains.

        Raises:
            WorkloadBehaviourError: the chain that failed cannot be identified, or all failed.
        """
        observations, rewards = self._played(steps)
        failures = self._bad_rewards(rewards)
        table = None if failures else self._in_table(observations)
        features: Float[np.ndarray, "n L1 d"] | None = None
        sound = list(range(len(self._places)))
        if table is None:
            features, sound = self._checked(observations, failures)
        self.steps += steps
        total = self.reward_sums
        for step in range(steps):  # in the order in which one alone sums them
            total = total + rewards[:, step]
        self.reward_sums = total
        self._between_rounds = True
        # Copies: what learners keep must not change when the chains step on.
        kept = sound if failures else slice(None)
        observations, rewards = observations[kept].copy(), rewards[kept].copy()
        flat, exogenous = observations.reshape(-1, *observations.shape[2:]), self._sites.exogenous
        self.part_names = self.part_names or part_names(flat[0])

        def rounds(rows: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "n L1 k"]:
            return rows.reshape(len(sound), steps + 1, rows.shape[-1])

        seen = rounds(parts_of(flat))
        unacted = None if exogenous is None else rounds(exogenous_of(exogenous, flat))
        if features is None:
            assert table is not None
            return Trajectory.in_table(table, rewards, parts=seen, exogenous=unacted), failures
        rows = self._in_table(observations)
        return Trajectory(features, rewards, parts=seen, exogenous=unacted, rows=rows), failures

    def _checked(
        self, observations: np.ndarray, failures: dict[int, WorkloadBehaviourError]
    ) -> tuple[Float[np.ndarray, "n L1 d"], list[int]]:
        """The features of the chains that have not failed, and their places; failures are added to the others.

        Raises:
            WorkloadBehaviourError: the chain that failed cannot be identified, or all failed.
        """
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
            # A copy in any case, as of the observations: a feature map may return what it was given.
            features = features.reshape(len(self._places), -1, self.features.dim)[sound]
        if not sound:
            raise next(iter(failures.values()))
        return features.reshape(len(sound), -1, self.features.dim), sound

    def _in_table(self, states: np.ndarray) -> TableRows | None:
        """The states by their numbers, where the features are a table which has them all."""
        if not isinstance(self.features, TabularFeatures) or states.dtype.kind not in "iu" or states.ndim != 2:
            return None
        table = self.features.matrix
        return TableRows.of(table, states) if states.min() >= 0 and states.max() < len(table) else None

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
        """Removes the chains in these places; their environments are stepped on with the others."""
        keep = [place for place in range(len(self._places)) if place not in places]
        self._places, self.reward_sums = self._places[keep], self.reward_sums[keep]
        self.references = tuple(self.references[place] for place in keep)
        self.labels = tuple(self.labels[place] for place in keep)

    def close(self) -> None:
        """Closes all environments; nothing is stepped any more."""
        close_sites(self._sites)

    def saved(self) -> SavedState | None:
        """The state of all chains, as that of one by `Chain.saved`; None if one cannot be saved."""
        if not self._begun or not self._between_rounds:
            return None
        try:
            state = self._chains.save_state()
            return None if state is None else packed(dict(state))
        except KeyboardInterrupt:
            raise
        except BaseException as failure:  # of the user's code; what was learnt is saved all the same
            log.error(CANNOT_SAVE, self._name, type(failure).__name__, failure)
            return None

    def go_on(self, steps: int, reward_sums: Float[np.ndarray, " n"], saved: SavedState | None) -> str:
        """As `Chain.go_on`, for all chains; the reason why they start over, or an empty text."""
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


class _PolicyGenerators(Sequence[np.random.Generator]):
    """The policies' generators of several chains, made when they are asked for: most policies draw nothing."""

    def __init__(self, origins: Sequence[tuple[int, int, int]], steps: int) -> None:
        """Of chains that begin after this number of steps."""
        self._origins, self._steps = tuple(origins), steps
        self._made: dict[int, np.random.Generator] = {}

    def __len__(self) -> int:
        return len(self._origins)

    @overload
    def __getitem__(self, place: int) -> np.random.Generator: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[np.random.Generator]: ...

    def __getitem__(self, place: int | slice) -> np.random.Generator | Sequence[np.random.Generator]:
        """That of one chain, the same each time, or those of some."""
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        number = range(len(self))[place]
        if number not in self._made:
            self._made[number] = policy_generator_of(*self._origins[number], self._steps)
        return self._made[number]


class SequentialRollouts:
    """The same for any workload, with a `Chain` for each agent; a failed chain can always be identified."""

    def __init__(
        self, sites: Sequence[Site], names: Sequence[str], origins: Sequence[tuple[int, int, int]]
    ) -> None:
        """Prepares; nothing is reset before the first step."""
        self.features = sites[0].features
        self.references: Sequence[ReferenceSolution | None] = tuple(site.reference for site in sites)
        self.labels = tuple(site.label for site in sites)
        self._chains = [
            Chain(site, name=name, index=index, seed=seed, first_round=first_round)
            for site, name, (seed, index, first_round) in zip(sites, names, origins, strict=True)
        ]

    @property
    def steps(self) -> int:
        return self._chains[0].steps

    @property
    def reward_sums(self) -> Float[np.ndarray, " n"]:
        return np.array([chain.reward_sum for chain in self._chains])

    @property
    def part_names(self) -> tuple[str, ...]:
        return self._chains[0].part_names

    @property
    def action_warnings(self) -> tuple[str, ...]:
        return tuple(chain.action_warning for chain in self._chains if chain.action_warning)

    def advance(self, steps: int) -> Trajectory:
        return _stacked([chain.advance(steps) for chain in self._chains])

    def advance_those_that_can(self, steps: int) -> tuple[Trajectory, dict[int, WorkloadBehaviourError]]:
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
        for place in places:
            self._chains[place].close()
        keep = [place for place in range(len(self._chains)) if place not in places]
        self._chains = [self._chains[place] for place in keep]
        self.references = tuple(self.references[place] for place in keep)
        self.labels = tuple(self.labels[place] for place in keep)

    def close(self) -> None:
        for chain in self._chains:
            chain.close()

    def saved(self) -> SavedState | None:
        return joined_states([chain.saved() for chain in self._chains])

    def go_on(self, steps: int, reward_sums: Float[np.ndarray, " n"], saved: SavedState | None) -> str:
        """As in `BatchedRollouts`; if one chain starts over, the others still continue."""
        parts = separate_states(saved, len(self._chains))
        words = [
            chain.go_on(steps, float(total), part)
            for chain, total, part in zip(self._chains, reward_sums, parts, strict=True)
        ]
        return NOT_SAVED if saved is None else next(filter(None, words), "")


def joined_states(parts: Sequence[SavedState | None]) -> SavedState | None:
    """The saved states of several chains as one; None if one of them is missing."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return packed({"texts": [text for text, _ in known], "arrays": [arrays for _, arrays in known]})


def separate_states(saved: SavedState | None, count: int) -> Sequence[SavedState | None]:
    """The states that `joined_states` joined, each None if they are not that many.

    Raises:
        ValueError: the state was not made by `packed`.
    """
    state = {"texts": [], "arrays": []} if saved is None else unpacked(*saved)
    known = list(zip(state["texts"], state["arrays"], strict=True))
    return known if len(known) == count else [None] * count


def _stacked(played: Sequence[Trajectory]) -> Trajectory:
    return Trajectory(
        np.stack([trajectory.features for trajectory in played]),
        np.stack([trajectory.rewards for trajectory in played]),
        parts=_stacked_parts([trajectory.parts for trajectory in played]),
        exogenous=_stacked_parts([trajectory.exogenous for trajectory in played]),
    )


def _stacked_parts(parts: Sequence[Float[np.ndarray, "L1 k"] | None]) -> Float[np.ndarray, "n L1 k"] | None:
    """Those of several agents; None where one lacks them or has others."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len({part.shape for part in known}) > 1:
        return None
    return np.stack(known)


GroupRollout: TypeAlias = BatchedRollouts | SequentialRollouts
"""The chains of a group."""
