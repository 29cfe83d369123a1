"""The state of a learner by the names of a result file: of one agent, or of a group with a leading axis n."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.files.agent_result import AgentResult
from cospan.core.aggregation.warm_start import HalfSums
from cospan.core.history.feature_rows import Rows, TableRows, dense, numbers_of, shared_table
from cospan.core.history.late_rounds import MOST_LATE, LateRound, late_of_agents
from cospan.core.learning.learner_state import LearnerState
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.posterior import ARRAYS, FleetPrior, PosteriorState
from cospan.core.learning.reward_moments import MOST_BATCHES, RewardBatches, RewardMoments
from cospan.core.linalg.leading_axes import PerAgent, per_agent
from cospan.core.specification import RunSpecification
from cospan.wire.errors import RunFileError
from cospan.wire.files.npz import Pieces

OF_ALL = (
    "steps",
    "head_basis",
    "head_rounds",
    "posterior_rounds",
    "posterior_basis",
    "posterior_head_covariance",
    "posterior_table",
)
"""Values of `learner_values` that all agents of a group have in common: they have no leading axis."""


def learner_values(state: LearnerState, specification: RunSpecification) -> dict[str, Any]:
    """The arrays and numbers of a state; see docs/run-folder.md."""
    return {
        "head": state.head,
        "gain_estimate": state.gain_estimate,
        "steps": state.steps,
        **_statistics(state, specification),
        **_halves(state),
        **_posterior(state.posterior, specification.rank),
        "reward_moments": _row(
            state.head, state.rewards.count, state.rewards.offset, state.rewards.deviations, state.rewards.reference
        ),
        "feature_squares": state.feature_squares,
    }


def loaded_learner(
    result: AgentResult, specification: RunSpecification, agents: tuple[int, ...] = ()
) -> LearnerState:
    """The state in a file.

    Args:
        result: the file.
        specification: of the run.
        agents: () in an agent's file, (n,) in a group's.

    Raises:
        RunFileError: a value is missing, or is something else.
    """
    return LearnerState(
        head=result.vector("head", *agents, specification.rank),
        gain_estimate=per_agent(result.vector("gain_estimate", *agents)),
        steps=result.whole("steps"),
        statistics=_loaded_statistics(result, specification, agents),
        rewards=_loaded_moments(result, agents),
        warm_up=None if agents else _loaded_halves(result, specification),
        feature_squares=per_agent(result.vector("feature_squares", *agents)),
        posterior=_loaded_posterior(
            result, specification.feature_dim, specification.method.steps_per_round, agents
        ),
    )


def loaded_posterior(result: AgentResult, feature_dim: int) -> LearnerState | None:
    """What the intervals of one agent's values are computed from; None where it has learnt no posterior.

    Args:
        result: the agent's file.
        feature_dim: d.

    Raises:
        RunFileError: a value is missing, or is something else.
    """
    if "posterior_rounds" not in result.values:
        return None
    steps = result.numbers("posterior_history", 2).shape[-1]
    posterior = _loaded_posterior(result, feature_dim, steps, ())
    table = None if posterior is None else result.values.get("posterior_table")
    state = LearnerState(
        head=result.numbers("head", 1),
        steps=result.whole("steps", least=1),
        statistics=loaded_sums(result, "head", (feature_dim,), None),
        rewards=_loaded_moments(result, ()),
        feature_squares=result.number("feature_squares"),
        posterior=posterior,
        late=loaded_late(result, table, 1, steps) if "late_rows" in result.values else (),
    )
    return state.summed()


def late_values(states: Sequence[LearnerState]) -> dict[str, Any]:
    """The rounds that the sums of several blocks of agents lack, as many of each; nothing where there are none."""
    if not states or not states[0].late:
        return {}
    rows = [Pieces.stacked([each.rows.rows for each in state.late], axis=-2) for state in states]
    rewards = [Pieces.stacked([each.rewards for each in state.late], axis=-2) for state in states]
    return {"late_rows": Pieces.of(rows), "late_history": Pieces.of(rewards)}


def loaded_of_others(result: AgentResult, learner: LearnerState, part: slice) -> LearnerState:
    """The state with the newest refreshing and late rounds of its own agents, which are not in the sample.

    Args:
        result: of the group.
        learner: of these agents, with the refreshing of the sample.
        part: their places in the group.

    Raises:
        RunFileError: a value is missing, or is something else.
    """
    if learner.posterior is None:
        return learner
    rounds = result.numbers("others_rounds", 1)
    if rounds.shape != (4,) or not 0 <= rounds[2] <= learner.posterior.rounds:
        raise RunFileError("'others_rounds' in the result of a group are no rounds; the file is damaged")
    refreshed = int(rounds[2])
    prior = loaded_prior(result, learner.posterior.changes.shape[-1], "others") if refreshed else None
    posterior = replace(learner.posterior, prior=prior, refreshed=refreshed)
    if "others_late_rows" not in result.values:
        return replace(learner, posterior=posterior)
    others, table = result.whole("others"), shared_table(posterior.features)
    late = loaded_late(result, table, others, posterior.rewards[0].shape[-1], "others_late")
    first = len(result.array("agent_ids")) - others
    own = late_of_agents(late, slice(part.start - first, part.stop - first))
    return replace(learner, posterior=posterior, late=own)


def loaded_late(
    result: AgentResult, table: Float[np.ndarray, "s d"] | None, agents: int, steps: int, name: str = "late"
) -> tuple[LateRound, ...]:
    """The rounds that the sums in a file lack.

    Args:
        result: the file.
        table: of the features.
        agents: n.
        steps: L.
        name: what the names of the values begin with.

    Raises:
        RunFileError: they are no rounds of this number of agents.
    """
    numbers, rewards = (np.asarray(result.array(f"{name}_{each}")) for each in ("rows", "history"))
    if agents == 1 and numbers.ndim == 2:
        numbers, rewards = numbers[None], rewards[None]
    count = numbers.shape[1] if numbers.ndim == 3 else 0
    is_sound = table is not None and numbers.shape == (agents, count, steps + 1) and numbers.dtype.kind == "u"
    if table is None or not is_sound or not 0 < count <= MOST_LATE or int(numbers.max()) >= len(table):
        raise RunFileError(f"'{name}_rows' in the result of a group are no rounds; the file is damaged")
    if rewards.shape != (agents, count, steps) or rewards.dtype.kind != "f" or not np.isfinite(rewards).all():
        raise RunFileError(f"'{name}_history' in the result of a group are no rewards; the file is damaged")
    return tuple(
        LateRound(TableRows(table, np.ascontiguousarray(numbers[:, place])), rewards[:, place])
        for place in range(count)
    )


def _loaded_moments(result: AgentResult, agents: tuple[int, ...]) -> RewardMoments:
    moments = result.vector("reward_moments", *agents, 4)
    return RewardMoments(
        int(moments[..., 0].max()),
        per_agent(moments[..., 1]),
        per_agent(moments[..., 2]),
        per_agent(moments[..., 3]),
    )


def batch_values(batches: RewardBatches, specification: RunSpecification) -> dict[str, Any]:
    """The arrays of batch means, half the width of the 95 % interval that they give, and its standard error."""
    steps = specification.method.steps_per_round
    return {
        "mean_reward_half_width": batches.half_width(steps),
        "mean_reward_standard_error": batches.standard_error(steps),
        "reward_batches": np.concatenate([batches.sums, batches.open_sum[..., None]], axis=-1),
        "reward_batch_rounds": np.array([batches.rounds, batches.open_rounds]),
    }


def loaded_batches(result: AgentResult, agents: tuple[int, ...] = ()) -> RewardBatches:
    """The batch means in a file.

    Args:
        result: the file.
        agents: () in an agent's file, (n,) in a group's.

    Raises:
        RunFileError: a value is missing, or is something else.
    """
    count = result.numbers("reward_batches", 1 + len(agents)).shape[-1]
    rounds = result.numbers("reward_batch_rounds", 1)
    if not (0 < count <= MOST_BATCHES and rounds.shape == (2,) and 0 <= rounds[1] < rounds[0]):
        raise RunFileError("'reward_batches' in the result of an agent are no batches; the file is damaged")
    sums = result.vector("reward_batches", *agents, count)
    return RewardBatches(sums[..., :-1], np.asarray(sums[..., -1]), int(rounds[0]), int(rounds[1]))


def _row(like: Float[np.ndarray, "*n r"], *numbers: PerAgent) -> Float[np.ndarray, "*n k"]:
    """Numbers of each agent side by side; one that all share is repeated."""
    return np.stack([np.broadcast_to(np.float64(each), like.shape[:-1]) for each in numbers], axis=-1)


def _statistics(state: LearnerState, spec: RunSpecification) -> dict[str, Any]:
    """Those of heads by least squares; of no rounds where the run has others."""
    statistics = state.statistics
    if statistics is None:
        statistics = TransitionSums.initial(np.zeros((spec.feature_dim, spec.rank)), state.head.shape[:-1])
    basis = np.zeros((0, 0)) if statistics.basis is None else statistics.basis
    return {"head_basis": basis, **sums_values("head", statistics)}


def _halves(state: LearnerState) -> dict[str, Any]:
    """Those of a warm-up that is not over, or was with the last round; nothing else."""
    halves = state.warm_up
    if halves is None:
        return {}
    parts = {**sums_values("first_half", halves.first), **sums_values("second_half", halves.second)}
    return {**parts, "second_half_from": halves.second_from}


def _posterior(state: PosteriorState | None, rank: int) -> dict[str, Any]:
    """What posterior head updates keep; nothing with other ones."""
    if state is None or not state.rounds:  # none, or of rounds of cuts alone
        return {}
    prior = state.prior or FleetPrior(np.zeros((state.changes.shape[-1], rank)), np.zeros((rank, rank)), 1)
    return {
        **{f"posterior_{name}": getattr(state, name) for name in ARRAYS},
        "posterior_basis": prior.basis,
        "posterior_head_covariance": prior.head_covariance,
        **_rounds(state.features),
        "posterior_history": np.stack(state.rewards, axis=-2),
        **_cuts(state),
        "posterior_rounds": np.array([state.rounds, state.stride, state.refreshed, prior.agents]),
        "shared_weight": state.shared_weight,
    }


def _rounds(features: Sequence[Rows]) -> dict[str, Any]:
    """The features of the kept rounds: in one array, made as it is written, or by their numbers in a table."""
    table = shared_table(features)
    if table is not None:
        return {"posterior_table": table, "posterior_rows": Pieces.stacked(numbers_of(features), axis=-2)}
    arrays = [dense(each) for each in features]
    whole = np.stack(arrays) if arrays[0].ndim == 2 else Pieces.stacked(arrays, axis=-3)
    return {"posterior_features": whole}


def _loaded_rounds(result: AgentResult, d: int, shape: tuple[int, ...]) -> tuple[Rows, ...]:
    """The features of the kept rounds; their shape is (*n, k, L + 1)."""
    if "posterior_rows" not in result.values:
        features = result.vector("posterior_features", *shape, d)
        return tuple(features[..., place, :, :] for place in range(shape[-2]))
    table, numbers = result.array("posterior_table"), result.array("posterior_rows")
    table = result.vector("posterior_table", len(table) if table.ndim else 0, d)
    if numbers.shape != shape or numbers.dtype.kind != "u" or int(numbers.max()) >= len(table):
        raise RunFileError(
            f"'posterior_rows' in the result of an agent are no rows of a table of {len(table)}, of shape {shape}; "
            "the file is damaged"
        )
    if len(shape) == 2:
        return tuple(table[numbers])
    return tuple(TableRows(table, np.ascontiguousarray(numbers[:, place])) for place in range(shape[-2]))


def _cuts(state: PosteriorState) -> dict[str, Any]:
    """Which slots of the kept rounds are no cuts, 1 or 0; nothing where there are none."""
    if all(each is None for each in state.is_transition):
        return {}
    every = np.ones(state.rewards[0].shape, dtype=np.bool_)
    kept = np.stack([every if each is None else each for each in state.is_transition])
    return {"posterior_is_transition": kept.astype(np.float64)}


def _loaded_cuts(result: AgentResult, kept: int, steps: int) -> tuple[np.ndarray | None, ...]:
    if "posterior_is_transition" not in result.values:
        return (None,) * kept
    rows = result.vector("posterior_is_transition", kept, steps) > 0.0
    return tuple(None if row.all() else row for row in rows)


def _loaded_posterior(result: AgentResult, d: int, steps: int, agents: tuple[int, ...]) -> PosteriorState | None:
    if "posterior_rounds" not in result.values:
        return None
    rounds = result.numbers("posterior_rounds", 1)
    kept = result.numbers("posterior_history", 2 + len(agents)).shape[-2]
    is_sound = rounds.shape == (4,) and min(rounds[[0, 1, 3]]) > 0 and 0 <= rounds[2] <= rounds[0]
    if not is_sound or not kept:
        raise RunFileError("'posterior_rounds' in the result of an agent are no rounds; the file is damaged")
    rewards = result.vector("posterior_history", *agents, kept, steps)
    return PosteriorState(
        second_moment=result.vector("posterior_second_moment", *agents, d, d),
        changes=result.vector("posterior_changes", *agents, d),
        noise=result.vector("posterior_noise", *agents, d + 1, d + 1),
        variance=result.vector("posterior_variance", *agents, d + 1),
        features=_loaded_rounds(result, d, (*agents, kept, steps + 1)),
        rewards=tuple(rewards[..., place, :] for place in range(kept)),
        is_transition=_loaded_cuts(result, kept, steps),
        stride=int(rounds[1]),
        rounds=int(rounds[0]),
        curvature=result.vector("posterior_curvature", *agents, d, d),
        score=result.vector("posterior_score", *agents, d),
        weights=result.vector("posterior_weights", *agents, d),
        shared_weight=per_agent(result.vector("shared_weight", *agents)),
        prior=loaded_prior(result, d) if rounds[2] else None,
        refreshed=int(rounds[2]),
    )


def loaded_prior(result: AgentResult, d: int, name: str = "posterior") -> FleetPrior:
    """The prior of the newest refreshing in a file.

    Args:
        result: the file.
        d: length of a feature vector.
        name: what the names of its values begin with.

    Raises:
        RunFileError: a value is missing, or is something else.
    """
    rank = result.numbers(f"{name}_basis", 2).shape[1]
    basis, agents = result.vector(f"{name}_basis", d, rank), result.numbers(f"{name}_rounds", 1)[-1]
    return FleetPrior(basis, result.vector(f"{name}_head_covariance", rank, rank), int(agents))


def sums_values(name: str, sums: TransitionSums) -> dict[str, Any]:
    """The arrays of sums under a name, with those of a group a leading axis."""
    return {
        f"{name}_system": sums.system,
        f"{name}_rewards": sums.rewards,
        f"{name}_traces": sums.traces,
        f"{name}_sums": _row(sums.rewards, sums.squares, sums.reward_sum, sums.steps),
        f"{name}_rounds": sums.rounds,
    }


def _loaded_statistics(
    result: AgentResult, spec: RunSpecification, agents: tuple[int, ...]
) -> TransitionSums | None:
    if not result.whole("head_rounds"):
        return None
    if spec.method.keeps_history:
        return loaded_sums(result, "head", (*agents, spec.feature_dim), None)
    basis = result.vector("head_basis", spec.feature_dim, spec.rank)
    return loaded_sums(result, "head", (*agents, spec.rank), basis)


def _loaded_halves(result: AgentResult, spec: RunSpecification) -> HalfSums | None:
    if "second_half_from" not in result.values:
        return None
    first, second = (loaded_sums(result, f"{name}_half", (spec.feature_dim,), None) for name in ("first", "second"))
    return HalfSums(first, second, result.whole("second_half_from"))


def loaded_sums(
    result: AgentResult, name: str, shape: tuple[int, ...], basis: Float[np.ndarray, "d r"] | None
) -> TransitionSums:
    """The sums under a name in a file.

    Args:
        result: the file.
        name: of the sums.
        shape: of Σ e: (*n, r).
        basis: in whose coordinates they are; None for the features.

    Raises:
        RunFileError: a value is missing, or is something else.
    """
    sums = result.vector(f"{name}_sums", *shape[:-1], 3)
    return TransitionSums(
        basis=basis,
        system=result.vector(f"{name}_system", *shape, shape[-1]),
        rewards=result.vector(f"{name}_rewards", *shape),
        traces=result.vector(f"{name}_traces", *shape),
        squares=per_agent(sums[..., 0]),
        reward_sum=per_agent(sums[..., 1]),
        steps=float(sums[..., 2].max()),
        rounds=result.whole(f"{name}_rounds"),
    )
