"""The learning curves in the agents' files, thinned as they are read: together they may be gigabytes."""

import contextlib
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cospan.cli.run_folder.layout import RunFolder
from cospan.client.files.agent_result import AgentResult
from cospan.client.files.group_file import group_agents, names_in
from cospan.client.files.result_file import load_result
from cospan.core.statistics import best_of_rows
from cospan.wire.errors import RunFileError

COLUMNS = ("curve_mean_squared_td_error", "curve_value_error", "curve_lstd_alone_error", "curve_td_alone_error")
_MOST_FILES = 2_000
"""Agents' files that are read: a few milliseconds each."""
_MOST_POINTS = 60_000
"""Of all agents in a report: less than 2 MB."""
_MOST_OF_ONE, _FEWEST_OF_ONE = 240, 16
_MOST_OF_CURVE = 720
"""Points of a curve that are kept in memory."""


@dataclass(frozen=True, eq=False, slots=True)
class Curve:
    """A thinned learning curve.

    Attributes:
        rounds: ascending.
        values: root mean square TD error, value errors of the joint method, of LSTD alone and of TD alone; nan if
            unknown.
    """

    rounds: Int[np.ndarray, " points"]
    values: Float[np.ndarray, "points 4"]

    @property
    def recent_td_error(self) -> float | None:
        """Root mean square of the newest quarter; None if it is unknown."""
        known = self.values[np.isfinite(self.values[:, 0]), 0]
        return float(np.sqrt(np.mean(known[-max(1, len(known) // 4) :] ** 2))) if len(known) else None

    def at(self, rounds: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k 4"]:
        """The newest known values at each of these rounds; nan before the first."""
        filled = self.values.copy()
        for column in filled.T:
            known = np.flatnonzero(np.isfinite(column))
            if len(known):
                newest = np.searchsorted(known, np.arange(len(column)), side="right") - 1
                column[newest >= 0] = column[known[newest[newest >= 0]]]
        places = np.searchsorted(self.rounds, rounds, side="right") - 1
        found = np.full((len(rounds), 4), np.nan)
        found[places >= 0] = filled[places[places >= 0]]
        return found

    def thinned(self, most: int) -> Float[np.ndarray, "points 5"]:
        """At most `most` points as (round, values), always with the newest."""
        places = np.unique(np.linspace(0, len(self.rounds) - 1, min(most, len(self.rounds))).round().astype(int))
        kept = self.at(self.rounds[places]) if len(places) else self.values
        return np.column_stack([self.rounds[places], kept])


def read_agents(folder: RunFolder, names: Sequence[str]) -> Iterator[tuple[AgentResult, Curve]]:
    """The agents' files with some of their arrays, and their curves; one that is damaged is named and left out.

    Args:
        folder: of the run.
        names: arrays to read beside the curves.

    Yields:
        The result without the curves' arrays, and the curve.
    """
    for found in itertools.islice(_files(folder, (*names, "curve_round", *COLUMNS)), _MOST_FILES):
        try:
            found.text("agent_id")
            curve = _curve(found)
        except RunFileError as failure:
            _left_out(failure)
            continue
        small = {name: value for name, value in found.values.items() if name in names}
        yield AgentResult(small), curve


def _files(folder: RunFolder, names: Sequence[str]) -> Iterator[AgentResult]:
    """The results of agents that have files of their own, and then of the others, from those of their groups."""
    paths = sorted(folder.agents.glob("*.npz")) if folder.agents.is_dir() else []
    groups = [path for path in paths if path.name.startswith("group-")]
    for path in paths:
        if path not in groups:
            with _named():
                yield load_result(path, names=names)
    for path in groups:
        with _named():
            without = {name for name in names_in(path) if not folder.agent(name).exists()}
            members = group_agents(path, names) if without else []
            yield from (each for each in members if each.text("agent_id") in without)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except RunFileError as failure:
        _left_out(failure)


def _left_out(failure: RunFileError) -> None:
    print(f"cospan: {failure}; it is left out of the report", file=sys.stderr)


def _curve(result: AgentResult) -> Curve:
    """The curve in a file, thinned; empty if the file has none."""
    if "curve_round" not in result.values:
        return Curve(np.zeros(0, dtype=np.int64), np.zeros((0, 4)))
    rounds = result.numbers("curve_round", 1).astype(np.int64)
    if (np.diff(rounds) <= 0).any():
        raise RunFileError("the rounds of a learning curve do not ascend; the file is damaged")
    values = np.full((len(rounds), 4), np.nan)
    for place, name in enumerate(COLUMNS):
        column = _column(result, name)[: len(rounds)]
        values[: len(column), place] = column
    points = Curve(rounds, values).thinned(_MOST_OF_CURVE)
    return Curve(points[:, 0].astype(np.int64), points[:, 1:])


def _column(result: AgentResult, name: str) -> Float[np.ndarray, " rounds"]:
    if name not in result.values:
        return np.zeros(0)
    if name == "curve_td_alone_error":
        errors = result.numbers(name, 2)
        return best_of_rows(errors) if errors.size else np.zeros(0)
    values = result.numbers(name, 1).astype(np.float64)
    return np.sqrt(np.maximum(values, 0.0)) if name == "curve_mean_squared_td_error" else values


def points_each(agents: int) -> int:
    """The most points of one agent's curve in a report of that many agents."""
    return min(_MOST_OF_ONE, max(_FEWEST_OF_ONE, _MOST_POINTS // max(1, agents)))


def quartile_columns(curves: Mapping[str, Curve], rounds: Int[np.ndarray, " k"]) -> dict[str, list[float]]:
    """Columns of `RoundSeries` over the agents, one value for each of these rounds: quartiles and medians.

    Memory is bounded: 2,000 curves at 720 rounds are 12 MB for each of the four columns.
    """
    if not curves or not len(rounds):
        return {}
    stack = np.stack([curve.at(rounds) for curve in curves.values()])
    found: dict[str, list[float]] = {}
    for place, (low, middle, high) in (
        (0, ("td_low", "td_error", "td_high")),
        (1, ("value_low", "value_error", "value_high")),
    ):
        known = np.where(np.isfinite(stack[:, :, place]), stack[:, :, place], np.nan)
        present = ~np.isnan(known).all(axis=0)
        spread = np.full((3, len(rounds)), np.nan)
        if present.any():
            spread[:, present] = np.nanquantile(known[:, present], (0.25, 0.5, 0.75), axis=0)
        found |= dict(zip((low, middle, high), spread.tolist(), strict=True))
    del found["value_error"]  # rounds.csv has it, without the agents that left
    return found
