"""Which learner of a run hosts which agents: one for each, or a group in each of some."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from cospan.client.agent import default_agent_id
from cospan.client.learning.group_learner import group_name, no_privacy, no_warm_up
from cospan.core.specification import RunSpecification
from cospan.wire.errors import InvalidValueError
from cospan.wire.limits import MAX_GROUP


@dataclass(frozen=True, slots=True)
class Host:
    """One learner: a process of its own in a networked run.

    Attributes:
        name: what it is called: its agent's name, or its group's.
        indices: of its sites, consecutive.
        is_group: whether it learns as a group.
    """

    name: str
    indices: Sequence[int]
    is_group: bool

    @property
    def agents(self) -> tuple[str, ...]:
        """The names of its agents."""
        return tuple(default_agent_id(index) for index in self.indices)


def hosts_of(specification: RunSpecification, groups: int | None, *, called: str = "groups") -> list[Host]:
    """Those of a run: one for each agent, or its agents split evenly over the groups.

    Args:
        specification: of the run.
        groups: how many; None for none, with each agent by itself.
        called: the name of that number in error messages.

    Raises:
        InvalidValueError: the number of groups is out of its range, or the run has a warm-up or
            differential privacy.
    """
    most = specification.agents
    if groups is None:
        return [Host(default_agent_id(index), (index,), is_group=False) for index in range(most)]
    least = -(-most // MAX_GROUP)
    if not 1 <= groups <= most:
        raise InvalidValueError(f"{called} is {groups}; with {most} agents it must be 1 to {most}")
    if groups < least:
        raise InvalidValueError(
            f"{called} is {groups}; one hosts {MAX_GROUP} agents at most, so for {most} it must be {least} or more"
        )
    if specification.method.warm_up_rounds:
        raise InvalidValueError(no_warm_up(specification))
    if problem := no_privacy(specification):
        raise InvalidValueError(problem)
    starts = [most * number // groups for number in range(groups + 1)]
    parts = [range(start, stop) for start, stop in itertools.pairwise(starts)]
    return [Host(group_name(part), part, is_group=True) for part in parts]
