"""What a group of agents learns, round by round: many `SiteLearner`s as one, and the sum of what they send.

The group is cut into blocks (`cospan.client.learning.group_blocks`).
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256

import numpy as np
from jaxtyping import Float, Int

from cospan.client.learning.agent_of_group import AgentOfGroup, BlockResults
from cospan.client.learning.first_rounds import FirstRounds
from cospan.client.learning.group_blocks import Block, BlockState, GroupSites
from cospan.client.learning.learning_curve import LearningCurve, most_rounds
from cospan.client.learning.site_learner import Warned
from cospan.core.aggregation.basis_update import Contribution, sum_of_contributions
from cospan.core.learning.baselines import LSTD_RIDGES, lstd_is_due
from cospan.core.learning.learner import contribution_of
from cospan.core.learning.learner_state import Trajectory
from cospan.core.learning.least_squares import PRIOR_STEPS
from cospan.core.learning.units import told_after
from cospan.core.quality.held_out import HeldOutErrors
from cospan.core.specification import RunSpecification
from cospan.wire.errors import InvalidValueError, WorkloadBehaviourError
from cospan.wire.messages import GradientUpload

_LOOKED_AT = 4
"""Agents of a group whose features the first rounds judge."""
MOST_TESTED = 1_000
"""Agents of a group whose TD errors are tested, and whose learning curves have errors of LSTD alone, evenly spread.

A test takes as long as two posteriors; an error of LSTD alone as two rounds, and the first rounds all have one."""


def group_name(indices: Sequence[int]) -> str:
    """What a group is called: by its first and last site, and where some are missing between by a digest of all."""
    name = f"group-{indices[0]}..{indices[-1]}"
    if indices[-1] - indices[0] + 1 == len(indices):
        return name
    return f"{name}-{sha256(','.join(map(str, indices)).encode()).hexdigest()[:8]}"


class GroupLearner:
    """The learners of a group around their chains. What each sees comes from (run seed, index, first round)."""

    def __init__(
        self,
        sites: GroupSites,
        specification: RunSpecification,
        *,
        names: Sequence[str],
        with_baseline: bool = False,
        first_round: int = 0,
    ) -> None:
        """Prepares learners that have learnt nothing.

        Args:
            sites: of the agents.
            specification: of the run.
            names: of the agents, in the order of their indices.
            with_baseline: whether TD alone learns beside each of them, one after another, and LSTD alone where the
                method's own sums are not its.
            first_round: the round in which they join.

        Raises:
            InvalidValueError: the run has a warm-up.
        """
        if specification.method.warm_up_rounds:
            raise InvalidValueError(no_warm_up(specification))
        self.specification = specification
        self.indices = tuple(index for block in sites.indices for index in block)
        """Of the sites, in the order in which all is kept: first those of the sample (`GroupSites.sampled`)."""
        name_of = dict(zip(sorted(self.indices), names, strict=True))
        self.names = tuple(name_of[index] for index in self.indices)
        """Of the agents, in the same order."""
        self.name = group_name(list(name_of))
        """Of the group as it began: it stays when members are dropped."""
        self.failures: dict[str, str] = {}
        """Why members were dropped, by name."""
        self.on_failure: list[Callable[[AgentOfGroup, str], None]] = []
        """Called with a member that failed, as it was after its last round, before it is dropped."""
        self.warnings: list[Warned] = []
        """See `SiteLearner`."""
        self._warned_of_actions = False
        self._first_rounds = [FirstRounds(name, specification.feature_dim) for name in self.names[:_LOOKED_AT]]
        self.features = sites.features
        starts = np.cumsum([0, *map(len, sites.indices)])
        self.blocks = [
            Block(
                part,
                specification,
                names=self.names[start : start + len(indices)],
                indices=indices,
                with_baseline=with_baseline,
                first_round=first_round,
                is_sampled=sites.sampled is None or number < sites.sampled,
            )
            for number, (part, indices, start) in enumerate(zip(sites.parts, sites.indices, starts, strict=False))
        ]
        tried = sum(len(learner.weights) for block in self.blocks for learner in block.state.independent)
        self.learning_curve = LearningCurve[np.ndarray](most=most_rounds(4 * len(self.names) + tried))
        """Of all agents: (n,) a round, and (n, m) of TD alone."""
        self.last_round: int | None = None
        self.between_rounds = True
        """False while the chains are stepped: some of them may have been, and others not."""

    def learn(
        self,
        round_number: int,
        basis: Float[np.ndarray, "d r"],
        head_covariance: Float[np.ndarray, "r r"] | None = None,
    ) -> GradientUpload:
        """Takes L steps with each agent, corrects their heads at B_t, and returns the sum of their gradients.

        Args:
            round_number: t.
            basis: B_t.
            head_covariance: W_t; None where the method has none.

        Raises:
            WorkloadBehaviourError: the environments, the policies or the features broke their contract.
        """
        method, self.between_rounds = self.specification.method, False
        trajectories = self._played()
        self._look(trajectories[0])
        states: list[BlockState] = []
        contributions: list[Contribution] = []
        errors: list[Float[np.ndarray, " n"]] = []
        bounded: list[np.ndarray] = []
        trajectories.reverse()
        for block in self.blocks:  # each lets go of its steps
            state, outcome = block.learn(basis, trajectories.pop(), round_number, head_covariance)
            states.append(state)
            # A block's outcome is let go before the next: those of a hundred thousand agents are large.
            contributions.append(contribution_of(outcome, method, round_number))
            errors.append(np.asarray(outcome.mean_squared_error))
            bounded.append(np.asarray(outcome.bounded))
        # All at once, so that a file written at any moment is of one round.
        for block, state in zip(self.blocks, states, strict=True):
            block.state = state
        self.last_round, self.between_rounds = round_number, True
        self._record(round_number, np.concatenate(errors))
        counts = self.bounded_rounds.tolist()
        reached = np.flatnonzero(np.concatenate(bounded)).tolist()
        return GradientUpload(
            round=round_number,
            contribution=sum_of_contributions(contributions, keep_factors=True),
            bounded=tuple(self.names[place] for place in reached if told_after(counts[place])),
        )

    def _record(self, round_number: int, td_errors: Float[np.ndarray, " n"]) -> None:
        is_last = round_number + 1 == self.specification.rounds
        if is_last or lstd_is_due(round_number):
            every = 1 if is_last else self.tested_every
            lstd = np.concatenate(
                [
                    block.lstd_alone_errors((PRIOR_STEPS,), every=every)[:, 0]
                    if is_last or block.is_sampled
                    else np.full(len(block.chains.labels), np.nan)
                    for block in self.blocks
                ]
            )
        else:
            lstd = np.full(len(self.names), np.nan)
        self.learning_curve.add(
            round_number,
            value_error=self.value_errors(),
            lstd_alone_error=lstd,
            td_alone_error=np.concatenate([block.td_alone_errors() for block in self.blocks]),
            gain_estimate=self.gains,
            mean_squared_td_error=td_errors,
        )

    def _played(self) -> list[Trajectory]:
        """The trajectories of the blocks; members that failed are dropped.

        Raises:
            WorkloadBehaviourError: the member that failed is unknown, all failed, or this is the first round.
        """
        found: list[Trajectory | None] = []
        failed: dict[str, WorkloadBehaviourError] = {}
        starts = self._starts()
        for block, start in zip(self.blocks, starts, strict=False):
            try:
                trajectory, failures = block.play()
            except WorkloadBehaviourError as failure:
                size = len(block.chains.labels)
                if not self.rounds or size == len(self.names):
                    raise
                trajectory, failures = None, dict.fromkeys(range(size), failure)
            found.append(trajectory)
            failed |= {self.names[start + place]: failure for place, failure in failures.items()}
        if len(failed) == len(self.names):
            raise next(iter(failed.values()))
        for agent in list(self.agents()) if failed else ():
            if agent.name in failed:
                for listener in self.on_failure:
                    listener(agent, str(failed[agent.name]))
        self.drop({name: str(failure) for name, failure in failed.items()})
        return [trajectory for trajectory in found if trajectory is not None]

    def drop(self, why: Mapping[str, str]) -> None:
        """Removes some members.

        Args:
            why: for each of them, by name; never all.
        """
        if not why:
            return
        blocks = []
        for block, start in zip(self.blocks, self._starts(), strict=False):
            size = len(block.chains.labels)
            places = [place for place in range(size) if self.names[start + place] in why]
            if len(places) == size:
                block.close()
                continue
            if places:
                block.drop(places)
            blocks.append(block)
        keep = [place for place, name in enumerate(self.names) if name not in why]
        self.blocks = blocks
        if not any(block.is_sampled for block in blocks):  # a group without weight in the step would be refused
            for block in blocks:
                block.join_sample()
        self.names = tuple(self.names[place] for place in keep)
        self.indices = tuple(self.indices[place] for place in keep)
        self._first_rounds = [self._first_rounds[place] for place in keep if place < len(self._first_rounds)]
        self.learning_curve.select(keep)
        self.failures |= why

    def _starts(self) -> list[int]:
        """The place of each block's first agent in the group."""
        return list(itertools.accumulate((len(block.chains.labels) for block in self.blocks), initial=0))

    def _look(self, trajectory: Trajectory) -> None:
        """Warns of what the data of the first members show."""
        for name, check, features in zip(self.names, self._first_rounds, trajectory.features, strict=False):
            if constant := check.look(features):
                self.warnings.append(Warned(name, "constant", constant))
        if self._warned_of_actions:
            return
        texts = [text for block in self.blocks for text in block.chains.action_warnings]
        if texts:
            self._warned_of_actions = True
            self.warnings.append(Warned(self.name, "action", texts[0]))

    def interrupt(self) -> None:
        """Nothing: a step of an environment cannot be interrupted."""

    def close(self) -> None:
        """Closes all environments; all that was learnt stays."""
        for block in self.blocks:
            block.close()

    @property
    def feature_dim(self) -> int:
        """Of the feature map."""
        return self.features.dim

    @property
    def bounded_rounds(self) -> Int[np.ndarray, " n"]:
        """Rounds in which the ball of radius U has cut the head of each agent."""
        return np.concatenate([block.state.bounded_rounds for block in self.blocks])

    @property
    def feature_fingerprint(self) -> str:
        """Of the feature map."""
        return self.features.fingerprint

    @property
    def rounds(self) -> int:
        """In how many rounds it has learnt."""
        return self.blocks[0].state.learner.steps // self.specification.method.steps_per_round

    @property
    def weights(self) -> Float[np.ndarray, "n d"]:
        """The learnt value weights of each agent (averaged iterates of B w)."""
        return np.concatenate([block.state.weights.mean for block in self.blocks])

    @property
    def gains(self) -> Float[np.ndarray, " n"]:
        """The estimated mean reward per step of each agent (averaged iterates of η)."""
        return np.concatenate([block.state.gain.mean for block in self.blocks])

    @property
    def mean_rewards(self) -> Float[np.ndarray, " n"]:
        """The mean of all rewards of each agent; nan before the first."""
        sums = np.concatenate([block.chains.reward_sums for block in self.blocks])
        steps = self.blocks[0].chains.steps
        return sums / steps if steps else np.full(len(sums), np.nan)

    def value_errors(self) -> Float[np.ndarray, " n"]:
        """The relative value error of each agent's averaged weights; nan where the truth is unknown."""
        return np.concatenate([block.value_errors() for block in self.blocks])

    def lstd_alone_weights(self) -> Float[np.ndarray, "n d"]:
        """See `SiteLearner.lstd_alone_weights`."""
        return np.concatenate([block.lstd_alone_weights() for block in self.blocks])

    def lstd_alone_errors(self, ridges: tuple[float, ...] = LSTD_RIDGES) -> Float[np.ndarray, "n k"]:
        """See `SiteLearner.lstd_alone_errors`."""
        return np.concatenate([block.lstd_alone_errors(ridges) for block in self.blocks])

    def explained_shares(self) -> Float[np.ndarray, " n"]:
        """See `SiteLearner.explained_share`."""
        return np.concatenate([block.explained_shares() for block in self.blocks])

    def held_shares(self) -> Float[np.ndarray, " n"]:
        """See `SiteLearner.held_share`."""
        return np.concatenate([block.held_shares() for block in self.blocks])

    def shared_weights(self) -> Float[np.ndarray, " n"]:
        """See `SiteLearner.shared_weight`."""
        return np.concatenate([block.shared_weights() for block in self.blocks])

    def td_error_correlation(self) -> tuple[Float[np.ndarray, "n lags"], Float[np.ndarray, "n lags"]]:
        """See `SiteLearner.td_error_correlation`."""
        found = [block.td_error_correlations() for block in self.blocks]
        return np.concatenate([each for each, _ in found]), np.concatenate([each for _, each in found])

    def held_out(self) -> HeldOutErrors:
        """See `SiteLearner.held_out`."""
        return HeldOutErrors.joined([block.held_out() for block in self.blocks])

    @property
    def tested_every(self) -> int:
        """Of how many agents of the sample one is tested for what the features lack: see `MOST_TESTED`."""
        sampled = sum(len(block.chains.labels) for block in self.blocks if block.is_sampled)
        return max(1, -(-sampled // MOST_TESTED))

    @property
    def part_names(self) -> tuple[str, ...]:
        """See `SiteLearner.part_names`."""
        return self.blocks[0].chains.part_names

    def gain_errors(self) -> Float[np.ndarray, " n"]:
        """|η̄ − J| of each, reward per step; nan where the truth is unknown."""
        gains = np.concatenate([block.references.gains for block in self.blocks])
        return np.asarray(np.abs(self.gains - gains))

    def agents(self) -> Iterator[AgentOfGroup]:
        """Each agent by itself, as it is now."""
        place = 0
        for block in self.blocks:
            results = BlockResults(block, self.tested_every)
            for number in range(len(block.chains.labels)):
                yield AgentOfGroup(self, block, results, number, place)
                place += 1


def no_warm_up(specification: RunSpecification) -> str:
    """Why a group cannot take part in a run with a warm-up, in a sentence."""
    return (
        f"warm_up_rounds is {specification.method.warm_up_rounds}; a warm-up's estimates are each agent's own, "
        "so a group cannot send them: set it to 0, or start a process for each agent"
    )


def no_privacy(specification: RunSpecification) -> str:
    """Why a group cannot take part in a run with differential privacy, in a sentence; empty where it can."""
    if not specification.is_private:
        return ""
    return (
        f"dp_epsilon is {specification.dp_epsilon:g}; differential privacy clips the upload of each agent, and a "
        "group never forms them: start a process for each agent"
    )
