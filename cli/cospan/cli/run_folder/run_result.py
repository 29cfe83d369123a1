"""How a run ended, and its document `result.json`."""

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from cospan.cli.run_folder.progress_log import RoundRow
from cospan.cli.settings.run_specification import preset_of
from cospan.core.aggregation.evidence_step import rank_in_use
from cospan.core.privacy.private_run import most_sent, spent_after
from cospan.core.quality.fleet_errors import FleetErrors, SiteErrors
from cospan.core.specification import RunSpecification, basis_digest
from cospan.core.statistics import best, best_of_rows, known, median, medians_by_round
from cospan.server.machine.state import CoordinatorState
from cospan.wire.errors import CospanError
from cospan.wire.messages import FinishCause
from cospan.wire.text import printable

if TYPE_CHECKING:  # a coordinator has no agents' results, and is not to import what agents need
    from cospan.client.decisions.step_decision import StepDecision
    from cospan.client.files.agent_result import AgentResult


_HELD_OUT = tuple(each.name for each in fields(SiteErrors))
_LEAST_SHARE = 0.01
"""Of the TD errors' variance: what explains less is not warned of."""


class RunFailedError(CospanError):
    """A run did not reach its end; its folder holds what was learnt."""

    reason = "RUN_FAILED"
    remedy = "The message gives the cause, and how to resume the run if that is possible."


@dataclass(frozen=True, slots=True)
class DepartedAgent:
    """An agent that left before the end: in which round, why, and whether it was asked to."""

    agent_id: str
    round: int
    cause: str
    asked: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        specification: of the run.
        run_id: its name.
        cause: one of `cospan.wire.messages.FinishCause`, or "coordinator-lost".
        message: the same in one sentence.
        rounds: number of rounds that closed.
        seconds: from the opening of the first round to the close of the last.
        agents: number of agents at the end.
        agent_steps: environment steps of all agents in the rounds that counted them.
        basis: B after the last round, shape (d, r); None if it is lost.
        head_covariance: W after the last round, shape (r, r); None where the method has none, or it is lost.
        vectors_sent: with differential privacy, how many vectors an agent has sent at most; 0 without.
        departures: agents that left before the end.
        subspace_error: of the basis; None if B* is unknown.
        rank_in_use: directions of the basis that the head covariance has not switched off; None where the method
            has none.
        bounded: names of agents whose heads reached `head_radius`.
        warnings: sentences for the user.
        void_rounds: rounds that closed without a step, as a process was lost whose masks were needed.
    """

    specification: RunSpecification
    run_id: str
    cause: str
    message: str
    rounds: int
    seconds: float
    agents: int
    agent_steps: int
    basis: Float[np.ndarray, "d r"] | None
    departures: tuple[DepartedAgent, ...] = ()
    subspace_error: float | None = None
    rank_in_use: int | None = None
    bounded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    head_covariance: Float[np.ndarray, "r r"] | None = None
    vectors_sent: int = 0
    void_rounds: int = 0


@dataclass(frozen=True, slots=True)
class AgentRow:
    """What one agent has learnt, in numbers; None if unknown.

    Attributes:
        id: its name.
        label: of its site.
        mean_reward: of all its steps.
        gain: the learnt mean reward per step.
        gain_error: |η̄ − J|.
        value_error: relative value error of the joint method.
        lstd_alone_error: the same of LSTD alone, learnt from the same transitions, with a ridge of ten steps.
        lstd_alone_best_error: the same with the best of several ridges, known in hindsight.
        td_alone_error: the same of TD alone, with the best of its own step sizes.
        bounded_rounds: rounds in which `head_radius` has cut its head.
        mean_reward_half_width: half the width of the 95 % interval of the mean reward.
        explained_share: of its rewards' pattern, by the learnt weights, 0.1 to 1.
        held_share: share of the true value's variance that the shared basis holds, 0 to 1.
        shared_weight: how much of its answer is the fleet's: 0 is its own data alone, 1 the fleet's answer.
        td_error_correlation: of its TD errors one and two steps apart.
        td_error_correlation_error: the standard errors of these.
        held_out: errors on data that earlier answers were not learnt from.
        held_out_steps: environment steps that those answers were learnt from, and measured with.
        is_within: whether they are of differences within equal exogenous parts.
        feature_gaps: what TD errors depend on beyond the features, and the share of their variance it explains.
        is_tested: whether they were tested for that.
        decisions: of each improvement step whether a new policy was taken, and the evidence; None without such
            steps. Numbers of a policy that changed are of the held one.
    """

    id: str
    label: str
    mean_reward: float | None = None
    gain: float | None = None
    gain_error: float | None = None
    value_error: float | None = None
    lstd_alone_error: float | None = None
    td_alone_error: float | None = None
    bounded_rounds: int | None = None
    explained_share: float | None = None
    lstd_alone_best_error: float | None = None
    mean_reward_half_width: float | None = None
    shared_weight: float | None = None
    td_error_correlation: tuple[float | None, ...] = ()
    td_error_correlation_error: tuple[float | None, ...] = ()
    held_share: float | None = None
    held_out: SiteErrors | None = None
    held_out_steps: tuple[int, int] = (0, 0)
    is_within: bool = False
    feature_gaps: Mapping[str, float] = field(default_factory=dict)
    is_tested: bool = False
    decisions: "tuple[StepDecision, ...] | None" = None

    @property
    def held_step(self) -> int | None:
        """The improvement step, from 1 on, that the held policy was taken in; None for the given policy."""
        return next((each.step + 1 for each in reversed(self.decisions or ()) if each.taken), None)

    @property
    def ratio(self) -> float | None:
        """Joint over the best alone; below 1 sharing pays."""
        return ratio_to_best(self.value_error, self.lstd_alone_error, self.td_alone_error)


def ratio_to_best(joint: float | None, *alone: float | None) -> float | None:
    """An error over the smallest of those of agents alone, where it and at least one of them are known."""
    found = [error for error in alone if error is not None]
    return joint / min(found) if joint is not None and found and min(found) > 0.0 else None


def matters(share: float) -> bool:
    """Whether TD errors depend on something so much that features of it would help."""
    return share > _LEAST_SHARE


def agent_row(result: "AgentResult") -> AgentRow:
    """The numbers of an agent's file."""
    from cospan.client.files.policy_values import DECISIONS, loaded_decisions
    from cospan.client.files.quality_values import feature_gaps, held_out_steps, is_tested, site_errors

    return AgentRow(
        id=result.text("agent_id"),
        label=printable(result.text("label")),
        mean_reward=known(result.number("mean_reward")),
        gain=known(float(result.array("gain")[0])),
        gain_error=known(result.number("gain_error")),
        value_error=known(result.number("value_error")),
        lstd_alone_error=_known_in(result, "lstd_alone_error"),
        td_alone_error=best(result.td_alone_errors),
        bounded_rounds=result.whole("bounded_rounds"),
        explained_share=_known_in(result, "explained_share"),
        lstd_alone_best_error=_known_in(result, "lstd_alone_best_error"),
        mean_reward_half_width=_known_in(result, "mean_reward_half_width"),
        shared_weight=result.shared_weight,
        td_error_correlation=_all_known_in(result, "td_error_correlation"),
        td_error_correlation_error=_all_known_in(result, "td_error_correlation_error"),
        held_share=_known_in(result, "held_share"),
        held_out=site_errors(result),
        held_out_steps=held_out_steps(result),
        is_within="held_out_within" in result.values and result.flag("held_out_within"),
        feature_gaps=feature_gaps(result),
        decisions=tuple(loaded_decisions(result)) if DECISIONS in result.values else None,
        is_tested=is_tested(result),
    )


def _known_in(result: "AgentResult", name: str) -> float | None:
    """A number that a file may lack."""
    return known(result.number(name)) if name in result.values else None


def _all_known_in(result: "AgentResult", name: str) -> tuple[float | None, ...]:
    """The numbers of a row that a file may lack."""
    return tuple(map(known, result.numbers(name, 1).tolist())) if name in result.values else ()


def result_document(outcome: RunOutcome, agents: Sequence[AgentRow] = ()) -> dict[str, Any]:
    """`result.json`. What is unknown is None; medians are over the agents that finished."""
    spec = outcome.specification
    departed = {departure.agent_id for departure in outcome.departures}
    finished = [agent for agent in agents if agent.id not in departed]
    ratios = [agent.ratio for agent in finished if agent.ratio is not None]
    return {
        "workload": spec.workload,
        "agents": outcome.agents,
        "rounds": outcome.rounds,
        "seed": spec.seed,
        "feature_dim": spec.feature_dim,
        "rank": spec.rank,
        "seconds": outcome.seconds,
        "rounds_per_second": outcome.rounds / outcome.seconds if outcome.seconds > 0.0 else None,
        "agent_steps": outcome.agent_steps,
        "basis_sha256": None if outcome.basis is None else basis_digest(outcome.basis),
        "subspace_error": outcome.subspace_error,
        "value_error": median(agent.value_error for agent in finished),
        "gain_error": median(agent.gain_error for agent in finished),
        "baselines": {
            "lstd_alone": median(agent.lstd_alone_error for agent in finished),
            "td_alone": median(agent.td_alone_error for agent in finished),
        },
        "ratio": median(ratios),
        "sites_compared": len(ratios),
        "sites_worse_than_alone": sum(each > 1.0 for each in ratios),
        "held_share": median(agent.held_share for agent in finished),
        "held_out": _held_out_document(finished),
        "sites_lacking_features": sum(any(map(matters, agent.feature_gaps.values())) for agent in finished),
        "sites_tested_for_features": sum(agent.is_tested for agent in finished),
        "shared_weight": median(agent.shared_weight for agent in finished),
        "rank_in_use": outcome.rank_in_use,
        "improvement": _improvement_document(spec, finished),
        "privacy": _privacy_document(outcome),
        "void_rounds": outcome.void_rounds,
        "run_id": outcome.run_id,
        "finish_cause": outcome.cause,
        "message": outcome.message,
        "preset": preset_of(spec.method),
        "method": plain_constants(spec.as_dict()["method"]),
        "departures": [asdict(gone) for gone in outcome.departures],
        "bounded_agents": sorted({*outcome.bounded, *(agent.id for agent in agents if agent.bounded_rounds)}),
        "warnings": list(outcome.warnings),
        "per_agent": [_agent_document(agent) for agent in agents],
        "cospan_version": importlib.metadata.version("cospan"),
        "numpy_version": np.__version__,
    }


def _privacy_document(outcome: RunOutcome) -> dict[str, float] | None:
    """What the run has cost of its privacy budget; None in a run without."""
    spent = spent_after(outcome.specification, outcome.vectors_sent)
    return None if spent is None else spent.as_dict()


def _improvement_document(spec: RunSpecification, agents: Sequence[AgentRow]) -> dict[str, Any] | None:
    """What improvement came to over the agents; None in a run without."""
    if not spec.improve:
        return None
    decisions = [each for agent in agents for each in agent.decisions or ()]
    names = ("evaluation_rounds", "trial_rounds", "explore", "confidence")
    return {
        "steps": spec.improve,
        **{name: getattr(spec, name) for name in names},
        "improved_agents": sum(agent.held_step is not None for agent in agents),
        "trials": sum(each.bound.pairs > 0 for each in decisions),
        "policies_taken": sum(each.taken for each in decisions),
    }


def _held_out_document(agents: Sequence[AgentRow]) -> dict[str, Any] | None:
    """Errors on held-out data over the sites; None where none are known."""
    known = [agent for agent in agents if agent.held_out is not None]
    fleet = FleetErrors.of([agent.held_out for agent in known if agent.held_out is not None])
    if fleet is None:
        return None
    learnt, held_out = np.median([agent.held_out_steps for agent in known], axis=0).astype(int).tolist()
    return {
        **asdict(fleet),
        "ratio": fleet.ratio,
        "learnt_steps": learnt,
        "held_out_steps": held_out,
        "within_exogenous": known[0].is_within,
    }


def _agent_document(agent: AgentRow) -> dict[str, Any]:
    learnt = ("id", "label", "mean_reward", "mean_reward_half_width", "gain", "gain_error", "value_error")
    alone = ("lstd_alone_error", "lstd_alone_best_error", "td_alone_error", "ratio")
    rest = ("shared_weight", "bounded_rounds", "explained_share", "held_share")
    correlations = ("td_error_correlation", "td_error_correlation_error")
    numbers = {name: getattr(agent, name) for name in (*learnt, *alone, *rest)}
    numbers |= {name: list(getattr(agent, name)) or None for name in correlations}
    held = agent.held_out
    # Without `asdict`, which copies each number and takes the most time of a hundred thousand agents.
    held_out = None if held is None else {**{name: getattr(held, name) for name in _HELD_OUT}, "ratio": held.ratio}
    numbers |= {"held_out": held_out, "feature_gaps": dict(agent.feature_gaps)}
    if agent.decisions is not None:
        numbers["policy"] = {
            "held_step": agent.held_step,
            "decisions": [each.as_dict() for each in agent.decisions],
        }
    return numbers


def plain_constants(values: Any) -> dict[str, Any]:
    """The constants, an infinite one as text: JSON has no infinity."""
    return {name: "inf" if value == float("inf") else value for name, value in values.items()}


def outcome_of_state(
    state: CoordinatorState, *, message: str, seconds: float, bounded: Iterable[str] = (), void_rounds: int = 0
) -> RunOutcome:
    """The outcome of a run whose machine has finished.

    Args:
        state: of the machine when it finished; later messages are not part of the run.
        message: why it is over.
        seconds: from the opening of the first round to the close of the last.
        bounded: agents whose heads reached `head_radius`.
        void_rounds: rounds that closed without a step.
    """
    counted = sum(state.history.rounds_counted.values())
    departures = sorted(state.members.departures.values(), key=lambda gone: (gone.round, gone.agent_id))
    cause, incarnation = state.finish_cause, state.config.incarnation
    assert cause is not None
    # A run that ends otherwise ends within a round, in which agents may have sent.
    sent = most_sent(state.round, incarnation, is_open=cause is not FinishCause.ROUNDS_REACHED)
    return RunOutcome(
        specification=state.specification,
        run_id=state.config.run_id,
        cause=cause.value,
        message=message,
        rounds=state.round,
        seconds=seconds,
        agents=len(state.members.hosts),
        agent_steps=counted * state.specification.method.steps_per_round,
        basis=state.basis,
        departures=tuple(DepartedAgent(gone.agent_id, gone.round, gone.cause) for gone in departures),
        head_covariance=state.head_covariance,
        rank_in_use=None if state.head_covariance is None else rank_in_use(state.head_covariance),
        bounded=tuple(sorted(bounded)),
        vectors_sent=min(sent, state.specification.dp_vectors),
        void_rounds=void_rounds,
    )


def read_outcome(
    document: Mapping[str, Any], specification: RunSpecification, basis: Float[np.ndarray, "d r"]
) -> RunOutcome:
    """The outcome of a `result.json` that a coordinator has written."""
    same = ("run_id", "message", "rounds", "void_rounds", "seconds", "agents", "agent_steps")
    return RunOutcome(
        **{name: document[name] for name in same},
        specification=specification,
        cause=document["finish_cause"],
        basis=basis,
        departures=tuple(DepartedAgent(**gone) for gone in document["departures"]),
        rank_in_use=document["rank_in_use"],
        bounded=tuple(document["bounded_agents"]),
        vectors_sent=(document.get("privacy") or {}).get("vectors_sent", 0),
    )


def with_medians(rows: Iterable[RoundRow], agents: "Iterable[AgentResult]") -> list[RoundRow]:
    """The rows with medians over the agents' learning curves."""
    from cospan.client.files.curve_values import learning_curves

    found = list(agents)
    joint = medians_by_round(*learning_curves(found, lambda agent: agent.array("curve_value_error")))
    lstd = medians_by_round(*learning_curves(found, lambda agent: agent.array("curve_lstd_alone_error")))
    td = medians_by_round(*learning_curves(found, lambda agent: best_of_rows(agent.array("curve_td_alone_error"))))
    return [
        replace(
            row,
            value_error=joint.get(row.round),
            lstd_alone_error=lstd.get(row.round),
            td_alone_error=td.get(row.round),
        )
        for row in rows
    ]
