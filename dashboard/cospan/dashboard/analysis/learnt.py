"""What each agent has learnt, in numbers that only the agents' own machine knows: by telemetry or from files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from cospan.dashboard.series import rounded

_SMOOTHING = 0.2
"""Weight of the newest of an agent's learning times."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """One agent's numbers; None if unknown.

    Attributes:
        label: of its site.
        value_error: relative value error of its answer.
        lstd_alone: the same of LSTD alone, learnt from the same transitions.
        td_alone: the same of TD alone, with the best of its step sizes.
        gain: the learnt mean reward per step.
        mean_reward: of all its steps.
        half_width: half the width of the 95 % interval of the mean reward.
        shared_weight: how much of its answer is the fleet's, 0 to 1.
        held_share: share of the true value's variance that the shared basis holds, 0 to 1.
        learning_seconds: that it takes to learn a round, without messages; smoothed.
        held_out_error: of earlier answers on held-out data, as a share of the values' variance.
        held_out_lstd_alone: the same of LSTD alone.
    """

    label: str = ""
    value_error: float | None = None
    lstd_alone: float | None = None
    td_alone: float | None = None
    gain: float | None = None
    mean_reward: float | None = None
    half_width: float | None = None
    shared_weight: float | None = None
    held_share: float | None = None
    learning_seconds: float | None = None
    held_out_error: float | None = None
    held_out_lstd_alone: float | None = None

    @property
    def best_alone(self) -> float | None:
        """The smaller error of those of LSTD alone and TD alone."""
        return min((error for error in (self.lstd_alone, self.td_alone) if error is not None), default=None)

    @property
    def ratio(self) -> float | None:
        """Value error over that of the best alone; below 1 sharing pays."""
        alone = self.best_alone
        return None if self.value_error is None or not alone else self.value_error / alone

    def after(self, before: "Learnt | None") -> "Learnt":
        """These numbers with a smoothed learning time, if others came before."""
        if before is None or before.learning_seconds is None or self.learning_seconds is None:
            return self
        old, new = before.learning_seconds, self.learning_seconds
        return replace(self, learning_seconds=old + _SMOOTHING * (new - old))

    def as_row(self, name: str) -> list[Any]:
        """The row of an agent, in the order of `LEARNT_COLUMNS`."""
        numbers = [rounded(getattr(self, column)) for column in LEARNT_COLUMNS[2:]]
        seconds = LEARNT_COLUMNS.index("learning_seconds") - 2
        if numbers[seconds] is not None:
            numbers[seconds] = float(f"{numbers[seconds]:.1g}")  # else a row would change every second
        return [name, self.label, *numbers]


LEARNT_COLUMNS = ("id", *(field.name for field in fields(Learnt)), "ratio")
"""Columns of an agent's row; see `Learnt`."""


def quartiles(values: Iterable[float | None]) -> tuple[float, float, float] | None:
    """First quartile, median and third quartile of the known values; None if there are none."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    if not known:
        return None
    low, middle, high = np.quantile(known, (0.25, 0.5, 0.75)).tolist()
    return low, middle, high


def error_columns(learnt: Mapping[str, Learnt]) -> dict[str, float]:
    """The columns of `RoundSeries` that the agents' errors give: medians, and quartiles of the value error."""
    found: dict[str, float] = {}
    spread = quartiles(each.value_error for each in learnt.values())
    if spread is not None:
        found = dict(zip(("value_low", "value_error", "value_high"), spread, strict=True))
    for column in ("lstd_alone", "td_alone"):
        spread = quartiles(getattr(each, column) for each in learnt.values())
        if spread is not None:
            found[column] = spread[1]
    spread = quartiles(each.held_share for each in learnt.values())
    if spread is not None:
        found["outside"] = max(0.0, 1.0 - spread[1])
    return found
