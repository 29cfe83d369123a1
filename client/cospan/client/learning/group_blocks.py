"""The blocks of a group: agents whose sums fit together into a core's cache learn with one call of numpy.

`cospan.client.learning.group_learner` puts them together.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from cospan.client.environment.group_rollout import chain_group
from cospan.client.environment.ownership import close_sites
from cospan.client.environment.workload_loader import check_shared_features, features_of, make_any_sites
from cospan.client.workload import FeatureMap, Site, Sites, SourceSite, Workload
from cospan.core.exact_solutions import ReferenceStack
from cospan.core.learning.baselines import (
    LSTD_RIDGES,
    IndependentTD,
    holds_lstd_sums,
    lstd_alone,
    separate_lstd_sums,
    with_transitions,
)
from cospan.core.learning.learner import learn_round
from cospan.core.learning.learner_state import LearnerState, RoundOutcome, Trajectory
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.reward_moments import RewardBatches
from cospan.core.learning.schedules import AveragedIterate, Refresh, refresh_of_others
from cospan.core.method import Method, takes_pooled
from cospan.core.quality.error_correlation import LAGS, error_correlation
from cospan.core.quality.held_out import HeldOutErrors
from cospan.core.quality.record import NOTHING_RECORDED, Due, QualityRecord
from cospan.core.specification import RunSpecification
from cospan.wire.errors import WorkloadBehaviourError

_BLOCK_NUMBERS = 2**17
"""Most numbers, 1 MiB, in the d × d sums of a block's agents, unless these are fewer than `_FEWEST`."""
_FEWEST, _MOST = 16, 256
"""Least and most agents in a block."""


def blocks_of(indices: Sequence[int], feature_dim: int, times: int = 1) -> Iterator[Sequence[int]]:
    """The indices in consecutive blocks, `times` as large as usual."""
    size = times * min(_MOST, max(_FEWEST, _BLOCK_NUMBERS // feature_dim**2))
    return (indices[start : start + size] for start in range(0, len(indices), size))


@dataclass(frozen=True, eq=False, slots=True)
class GroupSites:
    """The sites of a group, in blocks.

    Attributes:
        indices: of the sites of each block.
        parts: the sites of each block; none where the sites have no environments.
        sources: all sites, where their steps come from sources, as from logs.
        sampled: how many of the blocks, the first ones, are of the sample (`Method.refresh_sample`); None for all.
    """

    indices: tuple[Sequence[int], ...]
    parts: tuple[Sites | tuple[Site, ...], ...]
    sources: tuple[SourceSite, ...] = ()
    sampled: int | None = None

    @classmethod
    def of(
        cls,
        workload: Workload,
        indices: Sequence[int],
        feature_dim: int,
        seed: int,
        *,
        one_by_one: bool = False,
        sampled_every: int = 1,
    ) -> "GroupSites":
        """Makes them; see `cospan.client.environment.workload_loader.make_sites` for what it raises.

        Args:
            workload: of the sites.
            indices: of the sites.
            feature_dim: d.
            seed: of the run.
            one_by_one: whether each has an environment of its own, whatever the workload can step at once.
            sampled_every: of how many agents one is in the sample; these have blocks of their own, the first ones.
        """
        if one_by_one:
            workload = replace(workload, make_fleet=None)
        every = 1 if one_by_one else sampled_every
        # Most rounds of such a group do so little that calls of numpy take a large part of it.
        times = 1 if every == 1 else 2
        sample = tuple(blocks_of(indices[::every], feature_dim, times))
        others = [index for place, index in enumerate(indices) if place % every]
        blocks = (*sample, *blocks_of(others, feature_dim, times))
        parts: list[Sites | tuple[Site, ...]] = []
        sources: list[SourceSite] = []
        try:
            for block in blocks:
                made = make_any_sites(workload, block, seed)
                if isinstance(made, Sites):
                    parts.append(made)
                else:
                    sources += [site for site in made if isinstance(site, SourceSite)]
                    own = tuple(site for site in made if isinstance(site, Site))
                    parts += [own] if own else []
                first, last = (parts[0], parts[-1]) if parts else (sources[:1], sources[-1:])
                check_shared_features(workload, first, last, indices[0], block[0])
        except BaseException:
            for part in parts:
                close_sites(part)
            raise
        return cls(blocks, tuple(parts), tuple(sources), len(sample))

    @property
    def single(self) -> tuple[Site, ...]:
        """Those with environments; they have been made one by one."""
        return tuple(site for part in self.parts if not isinstance(part, Sites) for site in part)

    def close(self) -> None:
        """Closes all of them."""
        for part in self.parts:
            close_sites(part)

    @property
    def features(self) -> FeatureMap:
        """Those that all share."""
        return features_of(self.parts[0] if self.parts else self.sources)


@dataclass(frozen=True, eq=False, slots=True)
class BlockState:
    """What some agents of a group have learnt; see `SiteLearner`.

    Attributes:
        learner: heads, gain estimates and statistics of each.
        weights: averaged iterates of B w, shape (n, d).
        gain: averaged iterates of η, shape (n,).
        bounded_rounds: rounds in which the ball of radius U has cut the head of each, shape (n,).
        reward_batches: see `SiteLearner`.
        independent: TD alone of each; empty without the baseline.
        separate_sums: of LSTD alone of each, where the learner's own statistics are others; else None.
        quality: see `SiteLearner`.
    """

    learner: LearnerState
    weights: AveragedIterate
    gain: AveragedIterate
    bounded_rounds: Int[np.ndarray, " n"]
    reward_batches: RewardBatches
    independent: tuple[IndependentTD, ...] = ()
    separate_sums: TransitionSums | None = None
    quality: QualityRecord = NOTHING_RECORDED

    @property
    def td_alone(self) -> Float[np.ndarray, "n m d"]:
        """The averaged weights of TD alone of each, for each of its step sizes."""
        agents, dim = self.weights.mean.shape
        if not self.independent:
            return np.zeros((agents, 0, dim))
        return np.stack([learner.averaged.mean for learner in self.independent])

    def lstd_sums(self, method: Method) -> TransitionSums | None:
        """See `SiteLearner.lstd_sums`."""
        sums = self.learner.summed().statistics if holds_lstd_sums(method) else self.separate_sums
        return sums if sums is not None and sums.rounds else None


class Block:
    """Some agents of a group, their chains and what they have learnt."""

    def __init__(
        self,
        sites: Sites | Sequence[Site],
        specification: RunSpecification,
        *,
        names: Sequence[str],
        indices: Sequence[int],
        with_baseline: bool,
        first_round: int,
        is_sampled: bool = True,
    ) -> None:
        """Agents that have learnt nothing; `is_sampled`: see `GroupSites.sampled`."""
        d, r, power = specification.feature_dim, specification.rank, specification.method.averaging_power
        agents = len(indices)
        self.specification, self.is_sampled = specification, is_sampled
        self.chains = chain_group(
            sites, names=names, indices=indices, seed=specification.seed, first_round=first_round
        )
        self.references = ReferenceStack.of(self.chains.references, d)
        self._basis: Float[np.ndarray, "d r"] | None = None
        self._judged: tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]] | None = None
        """Weights and their value errors: in most rounds neither changes."""
        self.earlier_held_shares = np.full(agents, np.nan)
        """See `SiteLearner`."""
        self.state = BlockState(
            LearnerState.initial(r, agents),
            AveragedIterate(mean=np.zeros((agents, d)), power=power),
            AveragedIterate(mean=np.zeros(agents), power=power),
            np.zeros(agents, dtype=np.int64),
            RewardBatches.initial((agents,)),
            (IndependentTD.initial(d),) * agents if with_baseline else (),
            separate_lstd_sums(specification.method, d, (agents,)) if with_baseline else None,
        )

    def play(self) -> tuple[Trajectory, dict[int, WorkloadBehaviourError]]:
        """The next L steps, and the failures by place; see `BatchedRollouts.advance_those_that_can`.

        In the first round every failure is raised, so that a fleet that cannot begin fails at once.
        """
        steps = self.specification.method.steps_per_round
        if not self.state.learner.steps:
            return self.chains.advance(steps), {}
        return self.chains.advance_those_that_can(steps)

    def close(self) -> None:
        """Closes all environments."""
        self.chains.close()

    def drop(self, places: Collection[int]) -> None:
        """Removes the agents in these places."""
        keep = [place for place in range(len(self.chains.labels)) if place not in places]
        state = self.state
        self.state = BlockState(
            state.learner.of_agents(keep),
            replace(state.weights, mean=state.weights.mean[keep]),
            replace(state.gain, mean=state.gain.mean[keep]),
            state.bounded_rounds[keep],
            state.reward_batches.of_agents(keep),
            tuple(state.independent[place] for place in keep) if state.independent else (),
            None if state.separate_sums is None else state.separate_sums.of_agents(keep),
            state.quality.of_agents(keep),
        )
        self.earlier_held_shares = self.earlier_held_shares[keep]
        self.chains.drop(places)
        self.references = ReferenceStack.of(self.chains.references, self.specification.feature_dim)

    def learn(
        self,
        basis: Float[np.ndarray, "d r"],
        trajectory: Trajectory,
        round_number: int,
        head_covariance: Float[np.ndarray, "r r"] | None = None,
    ) -> tuple[BlockState, RoundOutcome]:
        """The state after a round, for the caller to set, and what the round gives."""
        method, before, self._basis = self.specification.method, self.state, basis
        is_last = round_number + 1 == self.specification.rounds
        outcome = learn_round(
            before.learner,
            basis,
            trajectory,
            method,
            round_number,
            head_covariance=head_covariance,
            agents=self.specification.agents,
            refresh=self._refresh_in(round_number),
        )
        separate = before.separate_sums
        if separate is not None:
            separate = with_transitions(separate, trajectory, outcome.state.rewards.reference)
        of_agents = (trajectory.features, trajectory.rewards) if before.independent else ((), ())
        pairs = zip(before.independent, *of_agents, strict=False)
        after = BlockState(
            outcome.state,
            before.weights.updated(outcome.weights),
            before.gain.updated(np.asarray(outcome.state.gain_estimate)),
            before.bounded_rounds + outcome.bounded,
            before.reward_batches.updated(trajectory.rewards),
            tuple(learner.learning_from(Trajectory(*played), method) for learner, *played in pairs),
            separate,
        )
        if not self.is_sampled:  # what the sample keeps beside tells how good the fleet's answers are
            return after, outcome
        quality = before.quality.following(
            trajectory,
            (before.learner, after.learner),
            after.lstd_sums(method),
            after.weights.mean,
            after.td_alone,
            due=Due(self.specification.rounds, is_last, with_tests=False),
        )
        return replace(after, quality=quality), outcome

    def _refresh_in(self, round_number: int) -> Refresh:
        rounds, posterior = self.specification.rounds, self.state.learner.posterior
        left = rounds - round_number - 1 if rounds else None
        if self.is_sampled:
            return Refresh.NOW if left == 0 else Refresh.WHEN_POOLED
        before, refreshed = (0, 0) if posterior is None else (posterior.rounds, posterior.refreshed)
        method = self.specification.method
        is_pooled = method.sends_pooled_in(round_number) or takes_pooled(before, method.pooled_growth)
        found = refresh_of_others(before + 1, refreshed, left)
        return Refresh.LEFT_OUT if found is Refresh.WHEN_POOLED and not is_pooled else found

    def quality(self, every: int = 1) -> QualityRecord:
        """See `SiteLearner`. The tests of TD errors are made now, for every agent: they take long."""
        state = self.state
        if not self.is_sampled:
            return state.quality
        return state.quality.tested(state.learner.posterior, self.lstd_sums, every)

    @property
    def summed(self) -> LearnerState:
        """What its agents know, with all rounds in all sums: made when it is asked for, and not kept."""
        return self.state.learner.summed()

    def join_sample(self) -> None:
        """Its agents are refreshed in every round of refreshes from now on."""
        self.is_sampled, self.state = True, replace(self.state, learner=self.summed)

    def value_errors(self) -> Float[np.ndarray, " n"]:
        """Relative value errors of the averaged weights; nan where the truth is unknown, or there is no answer."""
        weights = self.state.weights.mean
        if not self._has_answers:
            return np.full(len(weights), np.nan)
        if self._judged is None or self._judged[0] is not weights:
            self._judged = weights, self.references.value_errors(weights)
        return self._judged[1]

    def explained_shares(self) -> Float[np.ndarray, " n"]:
        """See `SiteLearner.explained_share`."""
        sums = self.summed.statistics
        if not self.specification.method.keeps_history or sums is None:
            return np.full(len(self.chains.labels), np.nan)
        return np.asarray(sums.explained_share(sums.residual(self.state.weights.mean)))

    def held_shares(self) -> Float[np.ndarray, " n"]:
        """See `SiteLearner.held_share`."""
        if self._basis is None:
            return self.earlier_held_shares
        return self.references.held_shares(self._basis)

    def shared_weights(self) -> Float[np.ndarray, " n"]:
        """See `SiteLearner.shared_weight`."""
        posterior = self.state.learner.posterior
        if posterior is None or not self._has_answers:
            return np.full(len(self.chains.labels), np.nan)
        return np.asarray(posterior.shared_weight)

    @property
    def _has_answers(self) -> bool:
        """False of agents that are not in the sample, before they are refreshed for the first time."""
        posterior = self.state.learner.posterior
        return self.is_sampled or posterior is None or posterior.refreshed > 0

    def td_error_correlations(self) -> tuple[Float[np.ndarray, "n lags"], Float[np.ndarray, "n lags"]]:
        """See `SiteLearner.td_error_correlation`."""
        posterior = self.state.learner.posterior
        if posterior is None or not self._has_answers:
            return (np.full((len(self.chains.labels), len(LAGS)), np.nan),) * 2
        return error_correlation(posterior)

    @property
    def lstd_sums(self) -> TransitionSums | None:
        """See `SiteLearner.lstd_sums`."""
        return self.state.lstd_sums(self.specification.method)

    def held_out(self) -> HeldOutErrors:
        """See `SiteLearner.held_out`."""
        return self.state.quality.errors(self.lstd_sums, self.summed.posterior, self.state.weights.mean)

    def lstd_alone_weights(self) -> Float[np.ndarray, "n d"]:
        """The value weights of LSTD alone of each; nan where they are unknown. A d × d solve for each."""
        sums = self.lstd_sums
        if sums is None:
            return np.full((len(self.chains.labels), self.specification.feature_dim), np.nan)
        return lstd_alone(sums)

    def lstd_alone_errors(
        self, ridges: tuple[float, ...] = LSTD_RIDGES, *, every: int = 1
    ) -> Float[np.ndarray, "n k"]:
        """Their relative value errors with several ridges, of each `every`-th agent; nan where unknown."""
        sums, found = self.lstd_sums, np.full((len(self.chains.labels), len(ridges)), np.nan)
        if sums is None or np.isnan(self.references.gains).all():
            return found
        some = slice(None, None, every)
        chosen, references = sums.of_agents(some), self.references.of_agents(some)
        for place, ridge in enumerate(ridges):
            found[some, place] = references.value_errors(lstd_alone(chosen, ridge))
        return found

    def td_alone_errors(self) -> Float[np.ndarray, "n m"]:
        """The same of TD alone, for each of its step sizes."""
        learners = self.state.independent
        found = np.full((len(self.chains.labels), len(learners[0].step_sizes) if learners else 0), np.nan)
        for number, (learner, reference) in enumerate(zip(learners, self.chains.references, strict=False)):
            if reference is not None:
                found[number] = reference.value_errors(learner.averaged.mean)
        return found
