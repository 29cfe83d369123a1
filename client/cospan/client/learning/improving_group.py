"""A group of a run with improvement steps: agents that learn one after another, and the sum of what they send.

Their policies change at different steps, and what was learnt of a policy is dropped with it. So they do not share
the arrays that make a `GroupLearner` fast: each is an `ImprovingLearner`, with the bits that it would have alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.decisions.improver import DEFAULT_OPTIONS, Options
from cospan.client.learning.group_learner import group_name
from cospan.client.learning.improving_learner import ImprovingLearner
from cospan.client.learning.site_learner import SiteLearner, Warned
from cospan.client.workload import Site
from cospan.core.aggregation.basis_update import sum_of_contributions
from cospan.core.specification import RunSpecification
from cospan.wire.errors import WorkloadBehaviourError
from cospan.wire.messages import GradientUpload


class ImprovingGroup:
    """The learners of a group whose policies may change; see `GroupLearner` for what its attributes mean."""

    def __init__(
        self,
        sites: Sequence[Site],
        specification: RunSpecification,
        *,
        names: Sequence[str],
        indices: Sequence[int],
        with_baseline: bool = False,
        first_round: int = 0,
        options: Options = DEFAULT_OPTIONS,
    ) -> None:
        """Prepares learners that have learnt nothing.

        Args:
            sites: of the agents.
            specification: of the run, with improvement steps.
            names: of the agents, in the order of the sites.
            indices: of the sites.
            with_baseline: see `SiteLearner`.
            first_round: the round in which they join.
            options: of comparisons in this process.

        Raises:
            InvalidValueError: see `Improver`.
        """
        members: list[SiteLearner] = [
            ImprovingLearner(
                site,
                specification,
                name=name,
                index=index,
                with_baseline=with_baseline,
                first_round=first_round,
                options=options,
            )
            for site, name, index in zip(sites, names, indices, strict=True)
        ]
        self._begin(specification, group_name(indices), members)

    def _begin(self, specification: RunSpecification, name: str, members: list[SiteLearner]) -> None:
        """Sets what a group of learners begins with."""
        self.specification, self.name, self.members = specification, name, members
        self.failures: dict[str, str] = {}
        self.on_failure: list[Callable[[SiteLearner, str], None]] = []
        """Called with a member that failed, before it is dropped."""
        self.warnings: list[Warned] = []
        self.last_round: int | None = None

    def learn(
        self,
        round_number: int,
        basis: Float[np.ndarray, "d r"],
        head_covariance: Float[np.ndarray, "r r"] | None = None,
    ) -> GradientUpload:
        """A round of every member, and the sum of their gradients; members that failed are dropped.

        Raises:
            WorkloadBehaviourError: a member failed in its first round, or all have failed.
        """
        uploads: list[GradientUpload] = []
        failed: dict[str, str] = {}
        for member in self.members:
            try:
                uploads.append(member.learn(round_number, basis, head_covariance))
            except WorkloadBehaviourError as failure:
                if not member.rounds or len(failed) + 1 == len(self.members):
                    raise
                failed[member.name] = str(failure)
                for listener in self.on_failure:
                    listener(member, str(failure))
        upload = self._sum_of(round_number, uploads)
        self.drop(failed)
        return upload

    def _sum_of(self, round_number: int, uploads: Sequence[GradientUpload]) -> GradientUpload:
        """What is sent of a round that the members have learnt; their warnings become those of the group."""
        for member in self.members:
            self.warnings += member.warnings
            member.warnings.clear()
        self.last_round = round_number
        return GradientUpload(
            round=round_number,
            contribution=sum_of_contributions([each.plain for each in uploads], keep_factors=True),
            bounded=tuple(name for each in uploads for name in each.bounded),
            improved=tuple(name for each in uploads for name in each.improved),
        )

    def drop(self, why: Mapping[str, str]) -> None:
        """Removes some members; see `GroupLearner.drop`."""
        for member in self.members:
            if member.name in why:
                member.close()
        self.members = [member for member in self.members if member.name not in why]
        self.failures |= why

    def interrupt(self) -> None:
        """Nothing: a step of an environment cannot be interrupted."""

    def close(self) -> None:
        """Closes all environments; all that was learnt stays."""
        for member in self.members:
            member.close()

    def agents(self) -> Iterator[SiteLearner]:
        """Each agent by itself."""
        return iter(self.members)

    @property
    def names(self) -> tuple[str, ...]:
        """Of its members."""
        return tuple(member.name for member in self.members)

    @property
    def indices(self) -> tuple[int, ...]:
        """Of their sites."""
        return tuple(member.index for member in self.members)

    @property
    def rounds(self) -> int:
        """In how many rounds they have taken part."""
        return self.members[0].rounds

    @property
    def features(self) -> Any:
        """The feature map that all share."""
        return self.members[0].site.features

    @property
    def feature_dim(self) -> int:
        """Of the feature map."""
        return self.members[0].feature_dim

    @property
    def feature_fingerprint(self) -> str:
        """Of the feature map."""
        return self.members[0].feature_fingerprint

    @property
    def weights(self) -> Float[np.ndarray, "n d"]:
        """The learnt value weights of each agent."""
        return np.stack([member.weights.mean for member in self.members])

    @property
    def gains(self) -> Float[np.ndarray, " n"]:
        """The estimated mean reward per step of each agent under the policy that it holds."""
        return np.concatenate([member.gain.mean for member in self.members])
