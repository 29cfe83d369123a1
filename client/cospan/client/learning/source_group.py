"""A group of agents whose steps come from sources, as from logs: a `SiteLearner` of each, and their gradients' sum.

Sources have cuts in different places and ends of their own, so such agents do not learn in arrays over the group,
as those of environments do (`group_learner`): they learn one after another, each with the bits that it has alone.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.client.environment.plain_values import SavedState
from cospan.client.learning.group_learner import group_name, no_warm_up
from cospan.client.learning.improving_group import ImprovingGroup
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.workload import SourceSite
from cospan.core.learning.learner_state import Trajectory
from cospan.core.specification import RunSpecification
from cospan.wire.errors import CospanError, InvalidValueError, WorkloadBehaviourError
from cospan.wire.messages import GradientUpload


class SourceGroup(ImprovingGroup):
    """The learners of a group around their sources; see `GroupLearner` for what its attributes mean."""

    def __init__(
        self,
        sites: Sequence[SourceSite],
        specification: RunSpecification,
        *,
        names: Sequence[str],
        indices: Sequence[int],
        with_baseline: bool = False,
        first_round: int = 0,
    ) -> None:
        """Prepares learners that have learnt nothing; see `ImprovingGroup`.

        Raises:
            InvalidValueError: the run has a warm-up.
        """
        if specification.method.warm_up_rounds:
            raise InvalidValueError(no_warm_up(specification))
        members = [
            SiteLearner(
                site, specification, name=name, index=index, with_baseline=with_baseline, first_round=first_round
            )
            for site, name, index in zip(sites, names, indices, strict=True)
        ]
        self._begin(specification, group_name(indices), members)

    def learn(
        self,
        round_number: int,
        basis: Float[np.ndarray, "d r"],
        head_covariance: Float[np.ndarray, "r r"] | None = None,
    ) -> GradientUpload:
        """Takes L steps of each source, and returns the sum of the agents' gradients; see `SiteLearner.learn`.

        All sources are asked before anything is learnt: one that waits for its log to grow, and is interrupted,
        leaves all agents as they were.

        Raises:
            SourceInterruptedError: `interrupt` was called.
            WorkloadBehaviourError: all sources failed, or one did in the first round.
        """
        for member in self.members:
            member.catch_up(round_number, basis, head_covariance)
        played = self._played()
        uploads = [
            member.learn_from(trajectory, round_number, basis, head_covariance)
            for member, trajectory in zip(self.members, played, strict=True)
        ]
        return self._sum_of(round_number, uploads)

    def _played(self) -> list[Trajectory]:
        """The steps of each; members whose sources failed are dropped."""
        found: list[Trajectory] = []
        failed: dict[str, WorkloadBehaviourError] = {}
        before = [_Place.of(member) for member in self.members]
        try:
            for member in self.members:
                try:
                    found.append(member.play())
                except WorkloadBehaviourError as failure:
                    if not self.rounds:
                        raise
                    failed[member.name] = failure
            if len(failed) == len(self.members):
                raise next(iter(failed.values()))
        except CospanError:
            if self.rounds:
                for place in before[: len(found) + len(failed)]:
                    place.restore(failed)
            raise
        for member in self.members:
            if member.name in failed:
                for listener in self.on_failure:
                    listener(member, str(failed[member.name]))
        self.drop({name: str(failure) for name, failure in failed.items()})
        return found

    def interrupt(self) -> None:
        """Ends waits for steps; from any thread."""
        for member in self.members:
            member.interrupt()


@dataclass(frozen=True, eq=False, slots=True)
class _Place:
    """Where the source of an agent stands before a round."""

    member: SiteLearner
    steps: int
    reward_sum: float
    saved: SavedState | None

    @classmethod
    def of(cls, member: SiteLearner) -> "_Place":
        return cls(member, member.source.steps, member.source.reward_sum, member.source.saved())

    def restore(self, but: Collection[str]) -> None:
        if self.member.name not in but:
            self.member.source.go_on(self.steps, self.reward_sum, self.saved)
