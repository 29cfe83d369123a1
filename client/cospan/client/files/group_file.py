"""What a group has learnt, as one npz file with all of its agents: see docs/run-folder.md."""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int

from cospan.client.environment.group_rollout import joined_states, separate_states
from cospan.client.environment.plain_values import SavedState
from cospan.client.files import improving_group_file
from cospan.client.files.agent_result import AgentResult
from cospan.client.files.curve_values import CURVE, curve_column, curve_values, loaded_curve
from cospan.client.files.kept_gradients import KEPT
from cospan.client.files.learner_values import (
    OF_ALL,
    batch_values,
    late_values,
    learner_values,
    loaded_batches,
    loaded_learner,
    loaded_of_others,
    sums_values,
)
from cospan.client.files.quality_values import COLUMNS as QUALITY
from cospan.client.files.quality_values import SHARED, loaded_quality, quality_values, unrecorded_values
from cospan.client.files.result_file import (
    OWNED,
    chain_values,
    check_owner,
    correlation_values,
    largest,
    load_result,
    loaded_chain,
    lstd_alone_values,
    owner,
    separate_sums_in,
    shared_values,
)
from cospan.client.files.state_file import FileKind
from cospan.client.learning.group_blocks import Block, BlockState
from cospan.client.learning.group_learner import GroupLearner
from cospan.client.learning.improving_group import ImprovingGroup
from cospan.client.learning.learning_curve import COLUMNS
from cospan.core.learning.baselines import IndependentTD
from cospan.core.learning.learner_state import LearnerState
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.posterior import ARRAYS
from cospan.core.learning.schedules import AveragedIterate
from cospan.core.quality.record import NOTHING_RECORDED
from cospan.wire.errors import RunFileError
from cospan.wire.files.npz import MAX_BYTES, Pieces, load_npz

FORMAT = "cospan-group-6"
EARLIER = ("cospan-group-4", "cospan-group-5")
"""Formats that are read too: the first has the features of the kept rounds, where later ones may have a table, and
neither has rounds that its sums lack."""
TITLE = "the result of a group"
AnyGroup: TypeAlias = GroupLearner | ImprovingGroup
"""A group, of a run with improvement steps or without."""
_COLUMNS = ("mean_reward", "value_error", "gain_error", "gain", "bounded_rounds")
_OF_ALL_BATCHES = ("reward_batch_rounds",)
_LATER_COLUMNS = (
    "explained_share",
    "held_share",
    "mean_reward_half_width",
    "lstd_alone_error",
    "lstd_alone_best_error",
    "shared_weight",
    "td_error_correlation",
    "td_error_correlation_error",
    *QUALITY,
)
"""Columns that a file may lack."""
OF_AGENTS = ("agent_id", "agent_ids", "labels", *_COLUMNS, *_LATER_COLUMNS, *SHARED, *CURVE)
"""What `agents_of` is made of; the rest may be gigabytes."""


_OF_RUN = (
    *("workload", "feature_fingerprint", "seed", "steps", "head_rounds"),
    *("posterior_rounds", "posterior_basis", "posterior_head_covariance", "posterior_table"),
    *("others", "others_rounds", "others_basis", "others_head_covariance"),
)
"""What all agents of a group have in common, of what a value function is read from."""
_OF_OTHERS = ("rounds", "basis", "head_covariance")
"""Of these, what agents have that are not in the sample: `others_rounds` in place of `posterior_rounds`, …."""
_LATE = ("late_rows", "late_history")
"""Of these agents, the rounds that their sums lack: `others_late_rows`, …, a row for each of them alone."""
_ASKED = (
    *("labels", "indices", "weights", "gain", "mean_reward", "value_error", "gain_error", "shared_weight", "head"),
    *("mean_reward_standard_error", "reward_batches", "reward_moments", "feature_squares"),
    *(f"head_{name}" for name in ("system", "rewards", "traces", "sums")),
    *(f"posterior_{name}" for name in (*ARRAYS, "features", "rows", "history")),
)
"""Those that a value function and its intervals are read from, with a leading axis n."""


def contents(group: GroupLearner, run_id: str, *, with_tests: bool = True) -> dict[str, Any]:
    """What a group's file holds: as it is now, whatever the group learns while that is being written.

    Large arrays are in `Pieces`: together they may be gigabytes, and are not copied before they are written.

    Args:
        group: what has learnt.
        run_id: of the run.
        with_tests: whether TD errors are tested for what the features lack, which takes long.
    """
    states = [block.state for block in group.blocks]
    first = states[0]
    return {
        "format": FORMAT,
        **shared_values(group, run_id),
        "seed": group.specification.seed,
        "agent_ids": np.array(group.names),
        "labels": np.array([label for block in group.blocks for label in block.chains.labels]),
        "indices": np.array(group.indices, dtype=np.int64),
        "weights": group.weights,
        "weights_count": first.weights.count,
        "gain": group.gains,
        "gain_count": first.gain.count,
        **_joined([learner_values(state.learner, group.specification) for state in states], OF_ALL),
        **_of_others(group),
        "bounded_rounds": group.bounded_rounds,
        "reward_sum": np.concatenate([block.chains.reward_sums for block in group.blocks]),
        "mean_reward": group.mean_rewards,
        **_joined([batch_values(state.reward_batches, group.specification) for state in states], _OF_ALL_BATCHES),
        "value_error": group.value_errors(),
        "explained_share": group.explained_shares(),
        "held_share": group.held_shares(),
        "gain_error": group.gain_errors(),
        **correlation_values(group),
        **lstd_alone_values(group, None),
        **_separate_sums([state.separate_sums for state in states]),
        **_independent([learner for state in states for learner in state.independent]),
        **_joined_quality(group, with_tests=with_tests),
        **chain_values(_saved_chains(group)),
        **curve_values(group.learning_curve),
    }


def _joined(parts: Sequence[dict[str, Any]], shared: Collection[str]) -> dict[str, Any]:
    """The values of all blocks as those of one; what all agents have in common is that of the first.

    What a block lacks, or has of another shape, the group has not: the observations of one may not be numbers.
    """
    found = {}
    for name, value in parts[0].items():
        columns = [part[name] for part in parts if name in part]
        if name in shared:
            found[name] = value
        elif len(columns) == len(parts) and len({column.shape[1:] for column in columns}) == 1:
            found[name] = Pieces.of(columns)
    return found


def _of_others(group: GroupLearner) -> dict[str, Any]:
    """The newest refreshing of agents that are not in the sample, where there are any; they come after those."""
    last = group.blocks[-1]
    if last.is_sampled or last.state.learner.posterior is None:
        return {}
    values = learner_values(last.state.learner, group.specification)
    found = {f"others_{name}": values[f"posterior_{name}"] for name in _OF_OTHERS}
    others = [block for block in group.blocks if not block.is_sampled]
    late = late_values([block.state.learner for block in others])
    found |= {f"others_{name}": value for name, value in late.items()}
    return {"others": sum(len(block.chains.labels) for block in others), **found}


def _separate_sums(parts: Sequence[TransitionSums | None]) -> dict[str, Any]:
    """Those of LSTD alone, where they are kept separately."""
    found = [sums_values("lstd_alone", part) for part in parts if part is not None]
    return _joined(found, ("lstd_alone_rounds",)) if found else {}


def _joined_quality(group: GroupLearner, *, with_tests: bool) -> dict[str, Any]:
    every, names = group.tested_every, group.part_names
    records = [block.quality(every) if with_tests else block.state.quality for block in group.blocks]
    pairs = zip(group.blocks, records, strict=True)
    parts: list[dict[str, Any]] = []
    for block, record in pairs:  # those of the sample come first
        if block.is_sampled or not parts:
            parts.append(quality_values(block.held_out(), record, names))
        else:
            parts.append(unrecorded_values(len(block.chains.labels), parts[0], names))
    return _joined(parts, (*SHARED, "quality_0_rounds", "quality_1_rounds"))


def _independent(learners: Sequence[IndependentTD]) -> dict[str, Any]:
    """Of TD alone; nothing without the baseline."""
    if not learners:
        return {}
    return {
        "td_alone_weights": np.stack([learner.weights for learner in learners]),
        "td_alone_averaged": np.stack([learner.averaged.mean for learner in learners]),
        "td_alone_gain_estimate": np.array([learner.gain_estimate for learner in learners]),
    }


def _saved_chains(group: GroupLearner) -> SavedState | None:
    """The saved state of the chains of all blocks; None where one cannot be saved."""
    if not group.between_rounds:
        return None
    return joined_states([block.chains.saved() for block in group.blocks])


def load_group(path: Path, *, names: Collection[str] | None = None, most_bytes: int = MAX_BYTES) -> AgentResult:
    """Reads a group's file: the values of all its agents, with a leading axis n; see `load_result`."""
    return load_result(path, names=names, most_bytes=most_bytes, expected=FORMAT, earlier=EARLIER, title=TITLE)


def agents_of(result: AgentResult, others: Collection[str] = ()) -> list[AgentResult]:
    """Each agent of a group's file by itself, with what a summary and a picture are made of.

    Args:
        result: of the group.
        others: names of further values with a row for each agent, where the file has them.

    Raises:
        RunFileError: a value is missing, or has no row for each agent.
    """
    names, labels = result.array("agent_ids").tolist(), result.array("labels").tolist()
    columns = {name: result.array(name) for name in _COLUMNS}
    later = {*_LATER_COLUMNS, *others} - {*_COLUMNS, "agent_id", "label"}
    columns |= {
        name: result.array(name) for name in later if name in result.values and not name.startswith("curve_")
    }
    for name, column in columns.items():
        if column.shape[:1] != (len(names),):
            raise RunFileError(f"{name!r} in the result of a group has no row for each agent; the file is damaged")
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
                **{key: result.values[key] for key in SHARED if key in result.values},
                "curve_every": np.array(result.curve_every),
                "curve_round": result.array("curve_round"),
                **{key: values[:, number] for key, values in curves.items()},
            }
        )
        for number, name in enumerate(names)
    ]


def member_of(path: Path, name: str) -> AgentResult | None:
    """One agent of a group's file, with what its value function and its intervals are read from.

    Args:
        path: of the group's file, of which no more is read than what is of this agent.
        name: of the agent.

    Returns:
        The values by the names of an agent's own file; None where the group has no such agent.

    Raises:
        RunFileError: the file is missing or damaged.
    """
    if _is_improving(path):
        return improving_group_file.member_of(path, name)
    result = load_group(path, names=("agent_ids", *_OF_RUN))
    agents = result.array("agent_ids").tolist()
    if name not in agents:
        return None
    values = {each: result.values[each] for each in _OF_RUN if each in result.values}
    place = agents.index(name)
    values |= load_npz(path, TITLE, names=_ASKED, row=place)
    if "others" in values and place >= len(agents) - int(values["others"]):
        values |= {
            f"posterior_{each}": values[f"others_{each}"] for each in _OF_OTHERS if f"others_{each}" in values
        }
        row = place - (len(agents) - int(values["others"]))
        late = load_npz(path, TITLE, names=[f"others_{each}" for each in _LATE], row=row)
        values |= {name.removeprefix("others_"): value for name, value in late.items()}
    for each in ("labels", "indices", "gain"):
        if each not in values:
            raise RunFileError(f"{path} lacks {each!r}; the file is damaged")
    names = {"agent_id": np.array(name), "label": values.pop("labels"), "index": values.pop("indices")}
    # The gain is a vector of length one in an agent's own file.
    return AgentResult({**values, **names, "gain": np.atleast_1d(values["gain"])})


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
        if "held_share" in result.values:
            block.earlier_held_shares = result.numbers("held_share", 1)[part]
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

    own, independent = learner.of_agents(part), block.state.independent
    if independent and "td_alone_weights" in result.values:
        shape = independent[0].weights.shape
        weights, averaged = rows("td_alone_weights", *shape), rows("td_alone_averaged", *shape)
        gains = rows("td_alone_gain_estimate")
        independent = tuple(
            IndependentTD(each, AveragedIterate(averaged[place], rounds), float(gains[place]), learner.steps)
            for place, each in enumerate(weights)
        )
    separate = separate_sums_in(result, block.state.separate_sums, (agents,))
    quality = loaded_quality(result, spec, (agents,)).of_agents(part) if block.is_sampled else NOTHING_RECORDED
    return BlockState(
        own if block.is_sampled else loaded_of_others(result, own, part),
        AveragedIterate(rows("weights", spec.feature_dim), result.whole("weights_count"), power),
        AveragedIterate(rows("gain"), rounds, power),
        _loaded_counts(result, "bounded_rounds", agents)[part],
        loaded_batches(result, (agents,)).of_agents(part),
        independent,
        None if separate is None else separate.of_agents(part),
        quality,
    )


def _loaded_counts(result: AgentResult, name: str, agents: int) -> Int[np.ndarray, " n"]:
    counts = result.numbers(name, 1)
    if counts.dtype != np.int64 or len(counts) != agents or counts.min() < 0:
        raise RunFileError(f"{name!r} in the result of a group is no count for each agent; the file is damaged")
    return counts


def group_agents(path: Path, others: Collection[str] = ()) -> list[AgentResult]:
    """Each agent of a group's file, of either kind, with what a summary and a picture are made of.

    Args:
        path: of the file.
        others: names of further values of each agent that are wanted.

    Raises:
        RunFileError: the file is missing or damaged.
    """
    if _is_improving(path):
        return improving_group_file.members_of(improving_group_file.load(path))
    return agents_of(load_group(path, names=(*OF_AGENTS, *others)), others)


def names_in(path: Path) -> list[str]:
    """The agents of a group's file, of either kind.

    Raises:
        RunFileError: the file is missing or damaged.
    """
    names: list[str] = AgentResult(load_npz(path, TITLE, names=("agent_ids",))).array("agent_ids").tolist()
    return names


def _is_improving(path: Path) -> bool:
    return str(load_npz(path, TITLE, names={"format"}).get("format")) == improving_group_file.FORMAT


def load_group_owner(path: Path) -> AgentResult:
    """What says whose a group's file is, of either kind.

    Raises:
        RunFileError: it is no such file.
    """
    load = improving_group_file.load if _is_improving(path) else load_group
    return load(path, names=(*OWNED, *KEPT))


def _contents(group: AnyGroup, run_id: str, *, with_tests: bool = True) -> dict[str, Any]:
    if isinstance(group, ImprovingGroup):
        return improving_group_file.contents(group, run_id)
    return contents(group, run_id, with_tests=with_tests)


def _resume(group: AnyGroup, path: Path, run_id: str) -> str:
    if isinstance(group, ImprovingGroup):
        return improving_group_file.resume(group, path, run_id)
    return resume(group, path, run_id)


GROUP: FileKind[AnyGroup] = FileKind(
    _contents, load_group_owner, _resume, checkpoint=partial(_contents, with_tests=False)
)
"""What `StateFile` needs to know of it."""
