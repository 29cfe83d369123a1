"""Learning curves in result files: of one agent, or of a group of n with an axis of agents after that of rounds."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cospan.client.files.agent_result import AgentResult
from cospan.client.learning.learning_curve import COLUMNS, LearningCurve
from cospan.wire.errors import RunFileError

CURVE = ("curve_every", "curve_round", *(f"curve_{name}" for name in COLUMNS))
"""The names of a curve's values in a file."""


def curve_values(curve: LearningCurve[Any]) -> dict[str, Any]:
    """Copies of the columns, which become arrays when the file is written: the curve may grow meanwhile."""
    columns = {f"curve_{name}": getattr(curve, name).copy() for name in COLUMNS}
    return {"curve_every": curve.every, "curve_round": np.array(curve.round, dtype=np.int64), **columns}


def curve_column(result: AgentResult, name: str, *agents: int) -> Float[np.ndarray, "rounds ..."]:
    """A column of a curve, shape (rounds, *agents), or (rounds, *agents, m) of TD alone.

    Raises:
        RunFileError: it is missing, or has another shape.
    """
    shape = (len(result.numbers("curve_round", 1)), *agents)
    dimensions = len(shape) + (name == "td_alone_error")
    if not shape[0] and not result.array(f"curve_{name}").size:
        return np.zeros((*shape, 0)[:dimensions])
    values = result.numbers(f"curve_{name}", dimensions)
    if values.shape[: len(shape)] != shape:
        raise RunFileError(
            "the columns of the learning curve in the file have different lengths; the file is damaged"
        )
    return values


def loaded_curve(result: AgentResult, step_sizes: int, *agents: int) -> LearningCurve[Any]:
    """The learning curve in a file.

    Args:
        result: the file.
        step_sizes: m of TD alone; its errors are nan if the file has another number of them.
        agents: nothing for an agent's file, n for a group's.

    Raises:
        RunFileError: a column is missing, or has another shape.
    """
    columns = {name: curve_column(result, name, *agents) for name in COLUMNS}
    errors = columns["td_alone_error"]
    if errors.shape[-1] != step_sizes:
        columns["td_alone_error"] = np.full((*errors.shape[:-1], step_sizes), np.nan)
    lists: dict[str, Any] = {
        name: values.tolist() if values.ndim == 1 else list(values) for name, values in columns.items()
    }
    return LearningCurve(round=result.array("curve_round").tolist(), every=result.curve_every, **lists)


def learning_curves(
    agents: Sequence[AgentResult], of_agent: Callable[[AgentResult], Float[np.ndarray, " n"]]
) -> tuple[list[Int[np.ndarray, " n"]], list[Float[np.ndarray, " n"]]]:
    """For each agent the rounds of its curve and a number for each of them, limited to comparable rounds.

    If some curves were thinned, these are the rounds that the coarsest of them keeps, and the newest of all.

    Args:
        agents: one or more.
        of_agent: the numbers of one agent.
    """
    every = max((agent.curve_every for agent in agents), default=1)
    pairs = []
    for agent in agents:
        rounds, values = agent.array("curve_round"), of_agent(agent)
        if len(rounds) != len(values):  # in a damaged file one may be shorter
            rounds, values = rounds[: len(values)], values[: len(rounds)]
        pairs.append((rounds, values))
    # The agents of a group share one array of rounds.
    distinct = {id(rounds): rounds for rounds, _ in pairs}
    newest = max((int(rounds[-1]) for rounds in distinct.values() if len(rounds)), default=0)
    kept = {key: np.flatnonzero((rounds % every == 0) | (rounds == newest)) for key, rounds in distinct.items()}
    thinned = {key: distinct[key][places] for key, places in kept.items()}
    return [thinned[id(rounds)] for rounds, _ in pairs], [values[kept[id(rounds)]] for rounds, values in pairs]
