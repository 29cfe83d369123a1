"""What a fleet has learnt so far: numbers, arrays, the agents' value functions, and a table of them."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.decisions.step_decision import StepDecision
from cospan.client.learning.agent_of_group import AgentOfGroup
from cospan.client.learning.group_learner import GroupLearner
from cospan.client.learning.improving_group import ImprovingGroup
from cospan.client.learning.improving_learner import ImprovingLearner
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.value_function import ValueFunction
from cospan.core.aggregation.evidence_step import rank_in_use
from cospan.core.learning.least_squares import PRIOR_STEPS
from cospan.core.quality.fleet_errors import FleetErrors, SiteErrors, site_of
from cospan.core.specification import RunSpecification, basis_digest
from cospan.core.statistics import best, best_of_rows, known, median, medians_by_round
from cospan.server.machine.state import CoordinatorState
from cospan.simulation.local_run import AnyLearner
from cospan.wire.errors import InvalidValueError
from cospan.wire.messages import RoundReport
from cospan.wire.text import and_more, printable

if TYPE_CHECKING:
    import pandas

_MOST_ROWS = 20
_OF_AGENT = ("index", "label", "steps", "mean_reward", "gain", "gain_error", "value_error")
"""Columns of a table of the agents that a value function has."""


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class FleetResult:
    """What a fleet has learnt so far; later rounds do not change it. Unknown numbers are nan.

    Attributes:
        specification: of the run.
        basis: B, shape (d, r), after the last round so far.
        rounds: arrays with one entry for each round, under the names of `rounds.csv`: round, seconds, contributors,
            basis_movement, orthonormality_error, subspace_error, value_error, lstd_alone_error, td_alone_error.
        agents: what each has learnt, in the order of their sites; of one that left, until then.
        lstd_alone_errors: the relative value error of LSTD alone, learnt from the same transitions, of each agent.
        td_alone_errors: the same of TD alone, with its best step size.
        shared_weights: how much of each agent's answer is the fleet's: 0 is its own data alone, 1 the fleet's
            answer; nan with presets other than `practical`.
        rank_in_use: directions of the basis that the head covariance has not switched off; None where the method
            has none.
        held_out: errors of each agent on data that earlier answers were not learnt from; None where unknown.
        policies: that each agent holds, in a run with improvement steps; None where a site's policy can only be
            judged, and of a run without such steps.
        decisions: of each improvement step whether an agent took its new policy, and the evidence, agents first.
        departures: why agents left before the end, by name.
        message: why the run is over, or "" where it is not.
    """

    specification: RunSpecification
    basis: Float[np.ndarray, "d r"]
    rounds: Mapping[str, np.ndarray]
    agents: tuple[ValueFunction, ...]
    lstd_alone_errors: Float[np.ndarray, " n"]
    td_alone_errors: Float[np.ndarray, " n"]
    shared_weights: Float[np.ndarray, " n"]
    rank_in_use: int | None
    held_out: tuple[SiteErrors | None, ...]
    policies: tuple[GreedyPolicy | None, ...]
    decisions: tuple[StepDecision, ...]
    departures: Mapping[str, str]
    message: str

    @property
    def value_error(self) -> float:
        """The median of the agents' relative value errors; those that left are left out."""
        return self._median([agent.value_error for agent in self.agents])

    @property
    def gain_error(self) -> float:
        """The median of the agents' |gain − J|."""
        return self._median([agent.gain_error for agent in self.agents])

    @property
    def lstd_alone_error(self) -> float:
        """The median of the relative value errors of LSTD alone, the strongest that each agent can do by itself."""
        return self._median(self.lstd_alone_errors.tolist())

    @property
    def td_alone_error(self) -> float:
        """The median of the relative value errors of TD alone."""
        return self._median(self.td_alone_errors.tolist())

    @property
    def held_out_error(self) -> FleetErrors | None:
        """The means of the errors on held-out data, with standard errors; None while there are too few data."""
        return FleetErrors.of([each for each in self.held_out if each is not None])

    @property
    def shared_weight(self) -> float:
        """The median of the agents' shared weights."""
        return self._median(self.shared_weights.tolist())

    @property
    def subspace_error(self) -> float:
        """The sine of the largest angle between the basis and B*."""
        errors = self.rounds["subspace_error"]
        return float(errors[-1]) if len(errors) else math.nan

    @property
    def basis_sha256(self) -> str:
        """Of the basis' float64 bytes: equal for equal bits, and the same as in `result.json`."""
        return basis_digest(self.basis)

    def to_frame(self, what: Literal["agents", "rounds"] = "agents") -> "pandas.DataFrame":
        """A table of the agents or of the rounds for pandas; unknown numbers are nan.

        Args:
            what: `agents`, with an agent in each row (its index is the agent's name), and columns named as in
                `result.json`; or `rounds`, with a round in each row and the columns of `rounds.csv`.

        Raises:
            InvalidValueError: pandas is not installed, or there is no such table.
        """
        if what not in ("agents", "rounds"):
            raise InvalidValueError(f"there is no table of {what!r}; take 'agents' or 'rounds'")
        try:
            import pandas
        except ImportError as failure:
            raise InvalidValueError("to_frame needs pandas; pip install pandas") from failure
        if what == "rounds":
            return pandas.DataFrame(dict(self.rounds)).set_index("round")
        alone = np.fmin(self.lstd_alone_errors, self.td_alone_errors)
        errors = np.array([agent.value_error for agent in self.agents])
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(alone > 0.0, errors / alone, np.nan)
        rows = {
            "id": [agent.agent_id for agent in self.agents],
            **{name: [getattr(agent, name) for agent in self.agents] for name in _OF_AGENT},
            "lstd_alone_error": self.lstd_alone_errors,
            "td_alone_error": self.td_alone_errors,
            "ratio": ratios,
            "shared_weight": self.shared_weights,
            "departure": [self.departures.get(agent.agent_id, "") for agent in self.agents],
        }
        return pandas.DataFrame(rows).set_index("id")

    def _median(self, values: Sequence[float]) -> float:
        finished = [
            known(value)
            for agent, value in zip(self.agents, values, strict=True)
            if agent.agent_id not in self.departures
        ]
        found = median(finished)
        return math.nan if found is None else found

    def __repr__(self) -> str:
        return f"<FleetResult: {self._title}; {self._errors}>"

    @property
    def _title(self) -> str:
        spec, done = self.specification, len(self.rounds["round"])
        of = f" of {spec.rounds}" if spec.rounds and done != spec.rounds else ""
        rounds = "round" if done == 1 and not of else "rounds"
        return f"{spec.workload or 'fleet'}, {len(self.agents)} agents, {done}{of} {rounds}"

    @property
    def _errors(self) -> str:
        alone = f"LSTD alone {_digits(self.lstd_alone_error)}, TD alone {_digits(self.td_alone_error)}"
        words = f"value error {_digits(self.value_error)}, {alone}"
        if math.isnan(self.value_error) and (found := self.held_out_error) is not None:
            words = f"held-out error {found.joint:.4g} ± {found.joint_error:.1g}, LSTD alone {found.lstd_alone:.4g}"
        return f"{words}, {len(self.departures)} left early" if self.departures else words

    def _repr_html_(self) -> str:
        """A small table, as notebooks draw it."""
        errors = ("gain error", "value error", "LSTD alone", "TD alone")
        columns = ("agent", "site", "mean reward", "gain", *errors, "shared weight")
        head = "".join(f"<th>{column}</th>" for column in columns)
        others = (self.lstd_alone_errors, self.td_alone_errors, self.shared_weights)
        numbers = np.stack(others, axis=-1).tolist()
        rows = [_row(agent, *more) for agent, more in zip(self.agents[:_MOST_ROWS], numbers, strict=False)]
        below = "".join(f"<p>{line}</p>" for line in and_more(len(self.agents), len(rows)))
        title = html.escape(f"{self._title}; {self._errors}")
        return f"<p><b>{title}</b></p><table><tr>{head}</tr>{''.join(rows)}</table>{below}"


def _row(agent: ValueFunction, *more: float) -> str:
    numbers = (agent.gain, agent.gain_error, agent.value_error, *more)
    cells = [html.escape(agent.agent_id), html.escape(printable(agent.label)), _mean_reward(agent)]
    cells += map(_digits, numbers)
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _mean_reward(agent: ValueFunction) -> str:
    """With half the width of the 95 % interval of the gain, where that is known."""
    half = agent.gain_uncertainty.half_width(0.95)
    return _digits(agent.mean_reward) + (f" ± {half:.2g}" if math.isfinite(half) else "")


def _digits(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "unknown"


def result_of(
    state: CoordinatorState,
    *,
    reports: Sequence[RoundReport],
    subspace_errors: Sequence[float],
    learners: Sequence[AnyLearner],
    dropped: Sequence["LearntBy"],
    departures: Mapping[str, str],
    message: str,
) -> FleetResult:
    """The result of a run so far.

    Args:
        state: of the coordinator, after the last round.
        reports: of the rounds.
        subspace_errors: after each round; nan if B* is unknown.
        learners: in the order of their sites; also those that left.
        dropped: members of groups that left.
        departures: why agents left, by name.
        message: why it is over, or "".
    """
    found = [*dropped, *(agent for learner in learners for agent in _of_learner(learner))]
    found.sort(key=lambda agent: agent.value.index)
    basis = state.basis.copy()
    basis.setflags(write=False)
    return FleetResult(
        specification=state.specification,
        basis=basis,
        rounds={**_of_reports(reports, subspace_errors), **_of_curves(reports, learners)},
        agents=tuple(agent.value for agent in found),
        lstd_alone_errors=np.array([agent.lstd_alone_error for agent in found]),
        td_alone_errors=np.array([agent.td_alone_error for agent in found]),
        shared_weights=np.array([agent.shared_weight for agent in found]),
        rank_in_use=None if state.head_covariance is None else rank_in_use(state.head_covariance),
        held_out=tuple(agent.held_out for agent in found),
        policies=tuple(agent.policy for agent in found),
        decisions=tuple(each for agent in found for each in agent.decisions),
        departures=dict(departures),
        message=message,
    )


@dataclass(frozen=True, eq=False, slots=True)
class LearntBy:
    """What one agent has learnt so far; of a member of a group that left, until then.

    Later rounds do not change it. The errors and the weight are those of `FleetResult`, of this agent.
    """

    value: ValueFunction
    lstd_alone_error: float
    td_alone_error: float
    shared_weight: float
    held_out: SiteErrors | None
    policy: GreedyPolicy | None = None
    decisions: tuple[StepDecision, ...] = ()

    @classmethod
    def of(cls, agent: AgentOfGroup | SiteLearner) -> "LearntBy":
        """Of an agent, or of a member of a group, before its group drops it."""
        features = agent.site.features if isinstance(agent, SiteLearner) else agent.features
        improver = agent.improver if isinstance(agent, ImprovingLearner) else None
        return cls(
            ValueFunction.of_learner(agent, features),
            float(agent.lstd_alone_errors((PRIOR_STEPS,))[0]),
            _or_nan(best(agent.td_alone_errors())),
            agent.shared_weight(),
            site_of(agent.held_out()),
            None if improver is None else improver.policy,
            () if improver is None else tuple(improver.decisions),
        )


def _of_learner(learner: AnyLearner) -> list[LearntBy]:
    """Of each of its agents."""
    if isinstance(learner, SiteLearner):
        return [LearntBy.of(learner)]
    if isinstance(learner, ImprovingGroup):
        return [LearntBy.of(member) for member in learner.members]
    lstd = learner.lstd_alone_errors((PRIOR_STEPS,))
    errors = np.concatenate([block.td_alone_errors() for block in learner.blocks])
    held_out = learner.held_out()
    columns = (
        lstd[:, 0].tolist(),
        [_or_nan(best(row)) for row in errors],
        learner.shared_weights().tolist(),
        [site_of(held_out.of_agent(place)) for place in range(len(lstd))],
    )
    values = [ValueFunction.of_learner(agent, learner.features) for agent in learner.agents()]
    return [LearntBy(*each) for each in zip(values, *columns, strict=True)]


def _of_reports(reports: Sequence[RoundReport], subspace_errors: Sequence[float]) -> dict[str, np.ndarray]:
    return {
        "round": np.array([report.closed_round for report in reports], dtype=np.int64),
        "seconds": np.array([report.seconds for report in reports]),
        "contributors": np.array([report.contributors for report in reports], dtype=np.int64),
        "basis_movement": np.array([report.basis_movement for report in reports]),
        "orthonormality_error": np.array([report.orthonormality_error for report in reports]),
        "subspace_error": np.array(subspace_errors, dtype=np.float64),
    }


def _of_curves(reports: Sequence[RoundReport], learners: Sequence[AnyLearner]) -> dict[str, np.ndarray]:
    """The medians over the agents after each round."""
    numbers: list[np.ndarray] = []
    joint: list[np.ndarray] = []
    lstd: list[np.ndarray] = []
    td: list[np.ndarray] = []
    for learner in _with_curves(learners):
        curve = learner.learning_curve
        if not curve.round:
            continue
        rounds = np.array(curve.round, dtype=np.int64)
        errors = np.array(curve.value_error, dtype=np.float64).reshape(len(rounds), -1)
        solved = np.array(curve.lstd_alone_error, dtype=np.float64).reshape(errors.shape)
        others: np.ndarray = np.array(curve.td_alone_error, dtype=np.float64).reshape(*errors.shape, -1)
        for agent in range(errors.shape[1]):
            numbers.append(rounds)
            joint.append(errors[:, agent])
            lstd.append(solved[:, agent])
            td.append(best_of_rows(others[:, agent]))
    columns = {"value_error": joint, "lstd_alone_error": lstd, "td_alone_error": td}
    found = {name: medians_by_round(numbers, values) for name, values in columns.items()}
    return {
        name: np.array([values.get(report.closed_round, math.nan) for report in reports])
        for name, values in found.items()
    }


def _with_curves(learners: Sequence[AnyLearner]) -> Iterator[SiteLearner | GroupLearner]:
    """Those that have a learning curve: the members of a group whose policies may change have one each."""
    for learner in learners:
        if isinstance(learner, ImprovingGroup):
            yield from learner.members
        else:
            yield learner


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
