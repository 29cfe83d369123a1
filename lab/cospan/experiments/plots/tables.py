"""Tables of value errors as text."""

from collections.abc import Sequence

import numpy as np

from cospan.experiments.estimates import Estimate, mean
from cospan.experiments.experiment import Table
from cospan.experiments.runner import Point, finals, method_names


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if np.isfinite(value) else "diverged"


def estimate(value: Estimate) -> str:
    """A number and its interval."""
    if value.low is None or value.high is None:
        return number(value.value)
    return f"{number(value.value)} ({number(value.low)} to {number(value.high)})"


def error_table(points: Sequence[Point], setting: str, title: str = "") -> Table:
    """Value errors at the end: a row for each method, a column for each setting; means over the seeds.

    Args:
        points: of all runs.
        setting: header of the first column.
        title: of the table.
    """
    final = finals(points)
    settings = list(dict.fromkeys(point.setting for point in final))
    rows = []
    for method in method_names(final):
        cells = []
        for each in settings:
            own = [point.value_error for point in final if (point.method, point.setting) == (method, each)]
            cells.append(estimate(mean(np.array(own))) if own else "")
        rows.append((method, *cells))
    return Table((setting, *settings), tuple(rows), title)
