"""The history of each agent's numbers, in a bounded number of points for all agents together."""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from cospan.dashboard.series import rounded

HISTORY_COLUMNS = ("round", "td_error", "value_error", "lstd_alone", "td_alone")
"""Columns of a point."""
_WIDTH = len(HISTORY_COLUMNS)
_MOST_POINTS = 100_000
"""Of all agents: 4 MB."""
_MOST_OF_ONE, _FEWEST_OF_ONE = 240, 8
_MOST_AGENTS = 4_096


class AgentHistories:
    """Points of all agents. Where one has its share, every second of its points is dropped."""

    def __init__(self) -> None:
        self._points: dict[str, array[float]] = {}

    def note(self, name: str, values: Iterable[float | None]) -> None:
        """Adds a point of an agent: a number for each column, None if unknown. An old round is ignored."""
        point = [np.nan if value is None else float(value) for value in values]
        points = self._points.get(name)
        if points is None:
            if len(self._points) >= _MOST_AGENTS:
                return
            points = self._points[name] = array("d")
        if len(points) and points[-_WIDTH] >= point[0]:
            return
        if len(points) >= _WIDTH * self._share():
            kept = np.asarray(points).reshape(-1, _WIDTH)[::2]
            points = self._points[name] = array("d", kept.ravel().tolist())
        points.extend(point)

    def _share(self) -> int:
        """The most points of one agent."""
        return min(_MOST_OF_ONE, max(_FEWEST_OF_ONE, _MOST_POINTS // len(self._points)))

    def of(self, name: str) -> dict[str, Any] | None:
        """The history of an agent for browsers; None if nothing is known of it."""
        points = self._points.get(name)
        return None if points is None else history_of(np.asarray(points).reshape(-1, _WIDTH))

    def keep(self, names: Mapping[str, Any]) -> None:
        """Drops the agents that the run has forgotten."""
        for name in [name for name in self._points if name not in names]:
            del self._points[name]


def history_of(points: np.ndarray) -> dict[str, Any]:
    """A history for browsers.

    Args:
        points: shape (points, columns), in the order of `HISTORY_COLUMNS`; nan if unknown.
    """
    return {"columns": HISTORY_COLUMNS, "points": list(_rows(points))}


def _rows(points: np.ndarray) -> Iterator[list[Any]]:
    for row in points.tolist():
        yield [int(row[0]), *map(rounded, row[1:])]
