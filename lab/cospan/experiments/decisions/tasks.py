"""The runs of the experiment: a fleet whose policies get better, with and without sharing and the gate.

What the methods compare is what an agent computes (`cospan.client.decisions`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cospan.client.workloads import microgrids, queues
from cospan.experiments.decisions.grids import microgrids_improved
from cospan.experiments.decisions.queue_fleets import queues_improved
from cospan.experiments.decisions.schedule import Schedule, Worth
from cospan.experiments.runner import Point, TaskResult


@dataclass(frozen=True, slots=True)
class BetterDecisionsTask:
    """One fleet whose policies get better.

    A point of method and agent has in `value_error` what its policy is worth after `rounds` improvement steps: cost
    of a test day as a share of the given policy's, or gain as a share of the optimum; in `probed_value` the
    cost of a day in currency.

    Attributes:
        seed: of the days or steps, and of the first basis.
        workload: microgrids or queues.
        agents: n.
        schedule: of the improvement.
        setting: of the experiment.
    """

    seed: int
    workload: str
    agents: int
    schedule: Schedule
    setting: str

    @property
    def rounds(self) -> int:
        """Of improvement."""
        return self.schedule.steps

    def run(self, on_round: Callable[[int], None] = lambda _: None) -> TaskResult:
        """Runs in this process; there are points for each agent, method and step."""
        improved = microgrids_improved if self.workload == "microgrids" else queues_improved
        points: list[Point] = []
        for number, worth in enumerate(improved(self.seed, self.agents, self.schedule)):
            points += self._points(number, worth)
            on_round(number)
        return TaskResult(self, tuple(points))

    def _points(self, number: int, worth: Worth) -> Iterator[Point]:
        made = microgrids.workload if self.workload == "microgrids" else queues.workload
        block, schedule = made.steps_per_round, self.schedule
        for method, agents in worth.items():
            for agent, (share, cost) in enumerate(agents):
                yield Point(
                    setting=self.setting,
                    method=method,
                    seed=self.seed,
                    agent=agent,
                    rounds=number,
                    steps=number * (schedule.evaluation + schedule.trial) * block,
                    sent=0,
                    value_error=share,
                    probed_value=cost,
                )
