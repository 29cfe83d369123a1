"""What an agent has learnt, as a small npz file: written atomically, read without pickle."""

import itertools
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from cospan.client.environment.observation_parts import MOST_PARTS
from cospan.client.environment.plain_values import SavedState
from cospan.client.files.agent_result import AgentResult
from cospan.client.files.curve_values import curve_values, loaded_curve
from cospan.client.files.learner_values import (
    batch_values,
    learner_values,
    loaded_batches,
    loaded_learner,
    loaded_sums,
    sums_values,
)
from cospan.client.files.policy_values import improvement_values, load_improvement, most_bytes_of_policies
from cospan.client.files.quality_values import loaded_quality, quality_values
from cospan.client.learning.agent_of_group import AgentOfGroup
from cospan.client.learning.group_learner import GroupLearner
from cospan.client.learning.improving_learner import ImprovingLearner
from cospan.client.learning.site_learner import SiteLearner
from cospan.core.learning.baselines import LSTD_RIDGES, IndependentTD
from cospan.core.learning.least_squares import PRIOR_STEPS, TransitionSums
from cospan.core.learning.posterior import HISTORY_PER_FEATURE
from cospan.core.learning.schedules import AveragedIterate
from cospan.core.quality.held_out import MOST_BLOCKS
from cospan.core.specification import RunSpecification
from cospan.wire.errors import RunFileError
from cospan.wire.files.npz import MAX_BYTES, load_npz, save_npz

FORMAT = "cospan-agent-4"


Learnt: TypeAlias = SiteLearner | AgentOfGroup
"""What an agent's file is made of."""


def save_result(path: Path, learner: Learnt, *, run_id: str, durable: bool = True) -> None:
    """Writes what `learner` has learnt, and where its chain stands; the file appears whole or not at all.

    Args:
        path: of the file.
        learner: whose it is.
        run_id: of the run.
        durable: see `save_npz`.

    Raises:
        RunFileError: it cannot be written.
    """
    save_npz(path, durable=durable, **contents(learner, run_id))


def contents(learner: Learnt, run_id: str) -> dict[str, Any]:
    """The values of a file of `learner`, as they are now: it may learn while they are being written."""
    spec, independent = learner.specification, learner.independent
    baseline = IndependentTD.initial(spec.feature_dim) if independent is None else independent
    return {
        "format": FORMAT,
        **shared_values(learner, run_id),
        "seed": spec.seed,
        "label": learner.label,
        "index": learner.index,
        "weights": learner.weights.mean,
        "weights_count": learner.weights.count,
        "gain": learner.gain.mean,
        "gain_count": learner.gain.count,
        **learner_values(learner.state, spec),
        "mean_reward": learner.mean_reward,
        "reward_sum": learner.reward_sum,
        **batch_values(learner.reward_batches, spec),
        "bounded_rounds": learner.bounded_rounds,
        "value_error": learner.value_error(),
        "gain_error": learner.gain_error(),
        "explained_share": learner.explained_share(),
        "held_share": learner.held_share(),
        **correlation_values(learner),
        **lstd_alone_values(learner, learner.separate_sums),
        "with_baseline": independent is not None,
        "td_alone_weights": baseline.weights,
        "td_alone_averaged": baseline.averaged.mean,
        "td_alone_gain_estimate": baseline.gain_estimate,
        **chain_values(learner.saved_chain()),
        **(improvement_values(learner) if isinstance(learner, ImprovingLearner) else {}),
        **quality_values(learner.held_out(), learner.quality, learner.part_names),
        **curve_values(learner.learning_curve),
    }


def correlation_values(learner: Learnt | GroupLearner) -> dict[str, Any]:
    """The correlation of TD errors from step to step, and its standard error."""
    found, spread = learner.td_error_correlation()
    return {"td_error_correlation": found, "td_error_correlation_error": spread}


def lstd_alone_values(learner: Learnt | GroupLearner, separate: TransitionSums | None) -> dict[str, Any]:
    """Weights and errors of LSTD alone, and its sums where they are not the learner's own statistics."""
    errors = learner.lstd_alone_errors()
    return {
        "lstd_alone_weights": learner.lstd_alone_weights(),
        "lstd_alone_error": errors[..., LSTD_RIDGES.index(PRIOR_STEPS)],
        "lstd_alone_best_error": errors.min(axis=-1),
        **({} if separate is None else sums_values("lstd_alone", separate)),
    }


def separate_sums_in(
    result: AgentResult, separate: TransitionSums | None, agents: tuple[int, ...] = ()
) -> TransitionSums | None:
    """The sums of LSTD alone in a file; None where it has none: those of later rounds alone would mislead.

    Args:
        result: the file.
        separate: those of the learner; None where it keeps none.
        agents: () in an agent's file, (n,) in a group's.

    Raises:
        RunFileError: a value is missing, or is something else.
    """
    if separate is None or "lstd_alone_system" not in result.values:
        return None
    return loaded_sums(result, "lstd_alone", (*agents, separate.traces.shape[-1]), None)


def shared_values(learner: Learnt | GroupLearner, run_id: str) -> dict[str, Any]:
    """The values that the file of an agent and that of a group have in common: run, features and last round."""
    spec = learner.specification
    return {
        **owner(learner.name, spec, run_id),
        "workload": spec.workload,
        "feature_fingerprint": learner.feature_fingerprint,
        "last_round": -1 if learner.last_round is None else learner.last_round,
    }


def chain_values(saved: SavedState | None) -> dict[str, Any]:
    """The saved state of a chain by the names of a file; an empty text where there is none."""
    text, arrays = saved or ("", [])
    return {"chain_state": text, **{f"chain_array_{number}": array for number, array in enumerate(arrays)}}


def largest(specification: RunSpecification, agents: int = 1) -> int:
    """The most bytes that the file of an agent, or of a group of n, may have.

    A warm-up keeps three d × d matrices, a posterior four and a history of features, at most two of each
    transition.

    What the environments save of themselves comes on top, within `MAX_BYTES`.
    """
    d, r = specification.feature_dim, specification.rank
    most = 5 * d * d + 16 * d + 4 * r * r + 2 * (MOST_BLOCKS + 12) * d
    if specification.method.has_head_covariance:
        transitions = HISTORY_PER_FEATURE * d + 3 * specification.method.steps_per_round
        most += 5 * d * d + 8 * d + (2 * d + 1 + 3 * MOST_PARTS) * transitions + (d + r) * r
    if specification.improve:
        most += most_bytes_of_policies(specification) // 8
    return MAX_BYTES + 8 * agents * most


def load_result(
    path: Path,
    *,
    names: Collection[str] | None = None,
    most_bytes: int = MAX_BYTES,
    expected: str = FORMAT,
    earlier: Collection[str] = (),
    title: str = "the result of an agent",
) -> AgentResult:
    """Reads an agent's file.

    Args:
        path: of the file.
        names: of the values that are needed; all by default.
        most_bytes: of these values.
        expected: the format.
        earlier: formats that can be read too.
        title: what the file should be, for error messages.

    Raises:
        RunFileError: it is missing, damaged, or has another format.
    """
    wanted = None if names is None else {"format", *names}
    values = load_npz(path, title, names=wanted, most_bytes=most_bytes)
    if str(values.get("format")) not in earlier:
        check_format(path, values, expected, title)
    return AgentResult(values)


def check_format(path: Path, values: Mapping[str, np.ndarray], expected: str, title: str) -> None:
    """Raises RunFileError where a file is not in the expected format; it tells another layout from another kind."""
    found = str(values.get("format"))
    if found == expected:
        return
    if found.rpartition("-")[0] == expected.rpartition("-")[0]:
        raise RunFileError(
            f"{path} has format {found[:80]}, and this version of Cospan reads {expected}: its values have other "
            "names or another meaning; read it with the version that wrote it, or learn it again"
        )
    raise RunFileError(f"{path} is not {title} (format {expected})")


OWNED = ("run_id", "agent_id", "specification_digest")
"""What `owner` compares."""


def owner(name: str, specification: RunSpecification, run_id: str) -> dict[str, str]:
    """The values in a file that an agent, or a group, of this name may continue from."""
    return {"run_id": run_id, "agent_id": name, "specification_digest": specification.digest()}


def check_owner(result: AgentResult, path: Path, owned: Mapping[str, str]) -> None:
    """Raises RunFileError where the values of a file are not those of `owner`."""
    for name, value in owned.items():
        if result.text(name) != value:
            raise RunFileError(
                f"{path} has {name.replace('_', ' ')} {result.text(name)!r}, and this agent {value!r}; "
                "it was saved in another run, so its head means nothing here: leave out --resume"
            )


def resume(learner: SiteLearner, path: Path, run_id: str) -> str:
    """Restores `learner` from a file of the same run and agent.

    Its chain continues too where the environment's state was saved and can be loaded, and starts over otherwise.

    Returns:
        The reason why the chain starts over; empty where it continues.

    Raises:
        RunFileError: the file is missing or damaged, or of another run or agent.
    """
    spec = learner.specification
    result = load_result(path, most_bytes=largest(spec))
    check_owner(result, path, owner(learner.name, spec, run_id))
    return restore(learner, result)


def restore(learner: SiteLearner, result: AgentResult) -> str:
    """The same of a file that is read already, without asking whose it is.

    Raises:
        RunFileError: the file is damaged.
    """
    spec = learner.specification
    # All is read before anything is set: a damaged file changes nothing.
    state, rounds = loaded_learner(result, spec), result.whole("gain_count")
    power = spec.method.averaging_power
    weights_count = result.whole("weights_count")
    weights = AveragedIterate(result.vector("weights", spec.feature_dim), weights_count, power)
    gain = AveragedIterate(result.vector("gain", 1), rounds, power)
    reward_sum = result.number("reward_sum")
    independent = learner.independent
    if independent is not None and result.flag("with_baseline"):
        shape = independent.weights.shape
        independent = IndependentTD(
            weights=result.vector("td_alone_weights", *shape),
            averaged=AveragedIterate(result.vector("td_alone_averaged", *shape), rounds),
            gain_estimate=result.number("td_alone_gain_estimate"),
            steps=state.steps,
        )
    separate, quality = separate_sums_in(result, learner.separate_sums), loaded_quality(result, spec)
    curve = loaded_curve(result, len(learner.td_alone_errors()))
    last_round, chain = result.last_round, loaded_chain(result)
    bounded_rounds, batches = result.whole("bounded_rounds"), loaded_batches(result)
    steps = state.steps
    if isinstance(learner, ImprovingLearner):
        steps, reward_sum = load_improvement(learner, result)
    learner.earlier_held_share = result.number("held_share") if "held_share" in result.values else math.nan
    learner.state, learner.weights, learner.gain, learner.independent = state, weights, gain, independent
    learner.separate_sums, learner.reward_batches, learner.quality = separate, batches, quality
    learner.learning_curve, learner.last_round, learner.bounded_rounds = curve, last_round, bounded_rounds
    return learner.source.go_on(steps, reward_sum, chain)


def loaded_chain(result: AgentResult) -> SavedState | None:
    """The saved state of the chain, or of the chains of a group; None where it was not saved."""
    text = result.text("chain_state")
    names = (f"chain_array_{number}" for number in itertools.count())
    arrays = [result.array(name) for name in itertools.takewhile(result.values.__contains__, names)]
    return (text, arrays) if text else None
