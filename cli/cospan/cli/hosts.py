"""Which process of a run hosts which agents: one for each, or a group in each of some processes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from cospan.cli.run_folder import RunFolder
from cospan.cli.specifying import RunPlan
from cospan.client.agent import default_agent_id
from cospan.client.group_learner import group_name, no_warm_up
from cospan.wire.errors import InvalidValueError
from cospan.wire.limits import MAX_GROUP


@dataclass(frozen=True, slots=True)
class Host:
    """A process of agents.

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

    @property
    def _sites(self) -> list[str]:
        if self.is_group:
            return ["--ids", f"{self.indices[0]}-{self.indices[-1]}"]
        return ["--id", self.name, "--index", str(self.indices[0])]

    def arguments(self, plan: RunPlan, folder: RunFolder, address: str) -> list[str]:
        """How `cospan` is called to start it."""
        settings = plan.settings
        baseline = () if settings.baseline is None else ("--baseline" if settings.baseline else "--no-baseline",)
        return [
            *("agent", plan.specification.workload, *self._sites, "--json", "--coordinator", address),
            *("--output", str(folder.agents if self.is_group else folder.agent(self.name))),
            *("--checkpoint-seconds", str(settings.checkpoint_seconds), "--patience", str(settings.patience)),
            *baseline,
            *(() if self.is_group else ("--share-td-error",)),  # it stays on this machine
        ]


def hosts_of(plan: RunPlan) -> list[Host]:
    """Those of a run: a process for each agent, or its agents split evenly over so many processes.

    Raises:
        InvalidValueError: the agents cannot be split so.
    """
    spec, processes = plan.specification, plan.settings.processes
    if processes is None:
        return [Host(default_agent_id(index), (index,), is_group=False) for index in range(spec.agents)]
    if processes > spec.agents:
        most = spec.agents
        raise InvalidValueError(f"processes is {processes}; with {most} agents it must be 1 to {most}")
    if spec.agents > processes * MAX_GROUP:
        least = -(-spec.agents // MAX_GROUP)
        raise InvalidValueError(
            f"processes is {processes}; a process hosts {MAX_GROUP} agents at most, so for {spec.agents} it must "
            f"be {least} or more"
        )
    if spec.method.warm_up_rounds:
        raise InvalidValueError(no_warm_up(spec))
    starts = [spec.agents * number // processes for number in range(processes + 1)]
    parts = [range(start, stop) for start, stop in itertools.pairwise(starts)]
    return [Host(group_name(part), part, is_group=True) for part in parts]
