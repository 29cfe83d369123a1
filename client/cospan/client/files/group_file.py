"""What a group has learnt, as one npz file with all of its agents: see docs/run-folder.md."""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from cospan.client.environment.group_rollout import joined_states, separate_states
from cospan.client.environment.plain_values import SavedState
from cospan.client.files.agent_result import AgentResult
from cospan.client.files.curve_values import CURVE, curve_column, curve_values, loaded_curve
from cospan.client.files.kept_gradients import KEPT
from cospan.client.files.learner_values import joined_values, loaded_learner
from cospan.client.files.result_file import (
    OWNED,
    chain_values,
    check_owner,
    largest,
    load_result,
    loaded_chain,
    owner,
    shared_values,
)
from cospan.client.files.state_file import FileKind
from cospan.client.learning.group_blocks import Block, BlockState
from cospan.client.learning.group_learner import GroupLearner
from cospan.client.learning.learning_curve import COLUMNS
from cospan.core.learning.baselines import IndependentTD
from cospan.core.learning.learner import LearnerState
from cospan.core.learning.schedules import AveragedIterate
from cospan.wire.errors import RunFileError
from cospan.wire.files.npz import MAX_BYTES

FORMAT = "cospan-group-3"
_COLUMNS = ("mean_reward", "value_error", "gain_error", "gain", "bounded_rounds")
OF_AGENTS = (
    *("agent_id", "agent_ids", "labels", "mean_reward", "value_error", "gain_error", "gain", "bounded_rounds"),
    "explained_share",
    *CURVE,
)
"""What `agents_of` is made of; the rest may be gigabytes."""


def contents(group: GroupLearner, run_id: str) -> dict[str, Any]:
    """What a group's file holds: as it is now, whatever the group learns while that is being written."""
    states = [block.state for block in group.blocks]
    first = states[0]
    return {
        "format": FORMAT,
        **shared_values(group, run_id),
        "agent_ids": np.array(group.names),
        "labels": np.array([label for block in group.blocks for label in block.chains.labels]),
        "indices": np.array(group.indices, dtype=np.int64),
        "weights": group.weights,
        "weights_count": first.weights.count,
        "gain": group.gains,
        "gain_count": first.gain.count,
        **joined_values([state.learner for state in states], group.specification),
        "bounded_rounds": group.bounded_rounds,
        "reward_sum": np.concatenate([block.chains.reward_sums for block in group.blocks]),
        "mean_reward": group.mean_rewards,
        "value_error": group.value_errors(),
        "explained_share": group.explained_shares(),
        "gain_error": group.gain_errors(),
        **_independent([learner for state in states for learner in state.independent]),
        **chain_values(_saved_chains(group)),
        **curve_values(group.learning_curve),
    }


def _independent(learners: Sequence[IndependentTD]) -> dict[str, Any]:
    """Of independent TD; nothing without the baseline."""
    if not learners:
        return {}
    return {
        "independent_weights": np.stack([learner.weights for learner in learners]),
        "independent_averaged": np.stack([learner.averaged.mean for learner in learners]),
        "independent_gain_estimate": np.array([learner.gain_estimate for learner in learners]),
    }


def _saved_chains(group: GroupLearner) -> SavedState | None:
    """The saved state of the chains of all blocks; None where one cannot be saved."""
    if not group.between_rounds:
        return None
    return joined_states([block.chains.saved() for block in group.blocks])


def load_group(path: Path, *, names: Collection[str] | None = None, most_bytes: int = MAX_BYTES) -> AgentResult:
    """Reads a group's file: the values of all its agents, with a leading axis n; see `load_result`."""
    return load_result(path, names=names, most_bytes=most_bytes, expected=FORMAT, title="the result of a group")


def agents_of(result: AgentResult) -> list[AgentResult]:
    """Each agent of a group's file by itself, with what a summary and a picture are made of."""
    names, labels = result.array("agent_ids").tolist(), result.array("labels").tolist()
    numbers = (*_COLUMNS, "explained_share")
    columns = {name: result.array(name) for name in numbers if name in result.values or name != "explained_share"}
    curves = {f"curve_{name}": curve_column(result, name, len(names)) for name in COLUMNS}
    # The gain is a vector of length one in an agent's own file.
    gains = columns.pop("gain")[:, None]
    return [
        AgentResult(
            {
                "agent_id": np.array(name),
                "label": np.array(labels[number]),
                "gain": gains[number],
                **{key: np.asarray(column[number]) for key, column in columns.items()},
                "curve_every": np.array(result.curve_every),
                "curve_round": result.array("curve_round"),
                **{key: values[:, number] for key, values in curves.items()},
            }
        )
        for number, name in enumerate(names)
    ]


def resume(group: GroupLearner, path: Path, run_id: str) -> str:
    """Restores `group` from a file of the same run and agents; see `result_file.resume`.

    Returns:
        The reason why the chains start over; empty where they continue.

    Raises:
        RunFileError: the file is missing or damaged, or of another run or group.
    """
    result = load_group(path, most_bytes=largest(group.specification, len(group.names)))
    check_owner(result, path, owner(group.name, group.specification, run_id))
    _drop_those_that_failed(group, result)
    places = np.cumsum([0, *(len(block.chains.labels) for block in group.blocks)]).tolist()
    parts = [slice(*bounds) for bounds in itertools.pairwise(places)]
    # All is read before anything is set: a damaged file changes nothing.
    learner = loaded_learner(result, group.specification, (len(group.names),))
    states = [_loaded_state(result, group, learner, *each) for each in zip(group.blocks, parts, strict=True)]
    sums = result.vector("reward_sum", len(group.names))
    step_sizes = states[0].independent[0].weights.shape[0] if states[0].independent else 0
    curve = replace(loaded_curve(result, step_sizes, len(group.names)), most=group.learning_curve.most)
    last_round, chains = result.last_round, _loaded_chains(result, len(parts))
    group.last_round, group.learning_curve = last_round, curve
    words = []
    for block, state, part, chain in zip(group.blocks, states, parts, chains, strict=True):
        block.state = state
        words.append(block.chains.go_on(state.learner.steps, sums[part], chain))
    return next(filter(None, words), "")


def _drop_those_that_failed(group: GroupLearner, result: AgentResult) -> None:
    """Removes the members that the file lacks: they had failed before it was written."""
    names = result.array("agent_ids")
    if names.ndim != 1:
        raise RunFileError("'agent_ids' in the result of a group is no list of names; the file is damaged")
    held = set(names.tolist())
    missing = [name for name in group.names if name not in held]
    if held and held < set(group.names):
        group.drop(dict.fromkeys(missing, "it had failed before its process was started again"))


def _loaded_chains(result: AgentResult, blocks: int) -> Sequence[SavedState | None]:
    try:
        return separate_states(loaded_chain(result), blocks)
    except (ValueError, LookupError, TypeError, RecursionError):
        return [None] * blocks


def _loaded_state(
    result: AgentResult, group: GroupLearner, learner: LearnerState, block: Block, part: slice
) -> BlockState:
    """What the agents of a block have learnt; `learner` is that of all."""
    spec, agents, rounds = group.specification, len(group.names), result.whole("gain_count")
    power = spec.method.averaging_power

    def rows(name: str, *shape: int) -> np.ndarray:
        return result.vector(name, agents, *shape)[part]

    independent = block.state.independent
    if independent and "independent_weights" in result.values:
        shape = independent[0].weights.shape
        weights, averaged = rows("independent_weights", *shape), rows("independent_averaged", *shape)
        gains = rows("independent_gain_estimate")
        independent = tuple(
            IndependentTD(each, AveragedIterate(averaged[place], rounds), float(gains[place]), learner.steps)
            for place, each in enumerate(weights)
        )
    return BlockState(
        learner.of_agents(part),
        AveragedIterate(rows("weights", spec.feature_dim), result.whole("weights_count"), power),
        AveragedIterate(rows("gain"), rounds, power),
        _loaded_counts(result, "bounded_rounds", agents)[part],
        independent,
    )


def _loaded_counts(result: AgentResult, name: str, agents: int) -> Int[np.ndarray, " n"]:
    counts = result.numbers(name, 1)
    if counts.dtype != np.int64 or len(counts) != agents or counts.min() < 0:
        raise RunFileError(f"{name!r} in the result of a group is no count for each agent; the file is damaged")
    return counts


GROUP: FileKind[GroupLearner] = FileKind(contents, partial(load_group, names=(*OWNED, *KEPT)), resume)
"""What `StateFile` needs to know of it."""
