"""Microgrids whose policies get better: plans are of what was observed, so all methods have the same days."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.client.decisions.acting_env import StepLog
from cospan.client.decisions.hindsight import Plan, planned_over
from cospan.client.decisions.logged_values import PLANNED_CAUTION, prior_of_plans
from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.decisions.trials import replayed_gains
from cospan.client.workloads import microgrids
from cospan.client.workloads.models.microgrids import HOURS, load_site
from cospan.core.decisions.paired_values import PairedMoments
from cospan.core.learning.learner_state import Trajectory
from cospan.experiments.decisions.plan_rounds import differences
from cospan.experiments.decisions.policy_tests import microgrid_cost
from cospan.experiments.decisions.schedule import (
    GATED,
    GIVEN,
    JOINT,
    TAG,
    Schedule,
    Worth,
    initial_fleet,
    is_proved,
    prior_of,
)

TEST_SEED = 20_260_307
"""Plus the seed of a run: of test days that no learning used, the same for every policy."""
TEST_CHAINS, TEST_DAYS = 20, 5
SEGMENT_DAYS = 2
"""Of trials: after the day before them, a battery's charge no longer tells where it began."""


@dataclass(eq=False, slots=True)
class _Grid:
    """One microgrid: what it observed, and which policy each method holds."""

    given: GreedyPolicy
    mean_load: float
    log: StepLog
    plan: Plan | None
    costs: dict[int, float]
    held: dict[str, GreedyPolicy]
    generator: np.random.Generator

    @classmethod
    def of(cls, index: int, seed: int, days: int) -> "_Grid":
        site = microgrids.make_site(index, seed)
        given = GreedyPolicy.given(site, index=index, workload="microgrids", seed=seed)
        generator = np.random.default_rng((seed, index, TAG))
        log = StepLog(list(_observed(index, days, generator)))
        made = planned_over(given, np.stack(log.observations), HOURS)
        methods = (GIVEN, *GATED, *GATED.values())
        return cls(given, load_site(index)[0].mean_load, log, made, {}, dict.fromkeys(methods, given), generator)

    def first(self, days: int) -> StepLog:
        """The log of the first days."""
        return StepLog(self.log.observations[: days * HOURS])

    def plan_of(self, days: int) -> Plan | None:
        """Of the first days alone: the moments whose plans look at nothing after them."""
        if self.plan is None:
            return None
        # Blocks of plans end with the log, and each looks ahead from its last moment.
        behind = (len(self.log.observations) - days * HOURS + HOURS - 1) // HOURS * HOURS
        known = len(self.plan.returns) - behind
        return Plan(self.plan.afterstates[:known], self.plan.returns[:known]) if known > 0 else None

    def decided(self, method: str, new: GreedyPolicy, days: int, trial: int) -> None:
        """The trial of a new policy on the days after these."""
        self.held[GATED[method]] = new
        tried = StepLog(self.log.observations[(days - 1) * HOURS : (days + trial) * HOURS])
        gains = replayed_gains((self.held[method], new), tried, HOURS, self.generator, segment_blocks=SEGMENT_DAYS)
        if is_proved(gains[1] - gains[0]):
            self.held[method] = new

    def worth(self, policy: GreedyPolicy, seed: int) -> tuple[float, float]:
        """Cost of a test day as a share of the rule's, and in currency."""
        for each in (self.given, policy):
            if id(each) not in self.costs:
                self.costs[id(each)] = microgrid_cost(
                    policy.index, each, TEST_SEED + seed, chains=TEST_CHAINS, days=TEST_DAYS
                )
        cost = self.costs[id(policy)]
        return cost / self.costs[id(self.given)], cost * self.mean_load


def _observed(index: int, days: int, generator: np.random.Generator) -> Float[np.ndarray, "t 5"]:
    """What a site observes on days drawn as its environment draws them, each hour with a charge drawn uniformly.

    Charges depend on who decides, and neither plans nor trials depend on charges, but for the one a segment of a
    trial begins with.
    """
    profiles = load_site(index)[1]
    drawn = generator.integers(len(profiles.net_load), size=days)
    found = np.zeros((days, HOURS, 5))
    found[..., microgrids.HOUR] = np.arange(HOURS)
    found[..., microgrids.CHARGE] = generator.random((days, HOURS))
    found[..., microgrids.OUTLOOK] = microgrids.outlook(profiles)[drawn]
    found[..., microgrids.NET_LOAD] = profiles.net_load[drawn]
    found[..., microgrids.GRID_UP] = profiles.grid_up[drawn]
    return found.reshape(days * HOURS, 5)


def microgrids_improved(seed: int, agents: int, schedule: Schedule) -> Iterator[Worth]:
    """Worth of all policies before the first step and after each; nothing after steps that are not measured.

    Worth is the cost of a test day as a share of the given policy's, and in currency.
    """
    plan_of, block = schedule, HOURS
    grids = [_Grid.of(index, seed, plan_of.blocks) for index in range(agents)]
    fleet = initial_fleet(grids[0].given, plan_of.rank, seed, agents, 2 * block)
    kept: list[GreedyPolicy] = []  # so that no id is used twice
    yield _grid_worth(grids, (GIVEN, *GATED, *GATED.values()), seed)
    for step in range(plan_of.steps):
        days = step * (plan_of.evaluation + plan_of.trial) + plan_of.evaluation
        plans = [grid.plan_of(days) for grid in grids]
        for _ in range(plan_of.later_rounds if step else plan_of.rounds):
            fleet = fleet.learning_from(_rounds_of_plans(grids, plans, 2 * block))
        for grid, made, state in zip(grids, plans, fleet.states, strict=True):
            if made is None:
                continue
            prior = prior_of_plans(state, prior_of(fleet))
            moments = PairedMoments.of(made.features(grid.given), made.returns, block)
            for method in GATED:
                values = moments.values(prior if method == JOINT else None)
                kept.append(grid.given.learnt(*values, PLANNED_CAUTION))
                grid.decided(method, kept[-1], days, plan_of.trial)
        # Measuring takes longer than learning.
        is_last = step + 1 == plan_of.steps
        yield _grid_worth(grids, (GIVEN, *GATED, *GATED.values()), seed) if is_last else {}


def _rounds_of_plans(grids: Sequence[_Grid], plans: Sequence[Plan | None], slots: int) -> list[Trajectory]:
    return [differences(grid.given, made, slots, grid.generator) for grid, made in zip(grids, plans, strict=True)]


def _grid_worth(grids: Sequence[_Grid], methods: Sequence[str], seed: int) -> Worth:
    return {method: [grid.worth(grid.held[method], seed) for grid in grids] for method in methods}
