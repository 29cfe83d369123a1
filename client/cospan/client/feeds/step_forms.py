"""What an observation of a feed is: numbers of an observation space, or the columns of a mapping.

A form turns what the loop sends into k finite numbers, or refuses it, and gives the feature map what it expects.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
from jaxtyping import Float

from cospan.client.environment.observation_parts import MOST_PARTS, parts_of
from cospan.client.feeds.errors import StepRefusedError
from cospan.client.logs.mapping import CLOCK, LogMapping, is_number
from cospan.client.logs.rows import clock_column, stamp_nanoseconds
from cospan.client.logs.tables.batch import TableError
from cospan.client.workload import AnySite, Site
from cospan.wire.errors import InvalidValueError

_SECOND = 10**9
Time = int | float
"""Nanoseconds since 1970, or a number in the unit of a mapping's time."""


@runtime_checkable
class StepForm(Protocol):
    """How the observations of a site are sent.

    Attributes:
        text: what they are, in words; equal for equal forms.
        step: between steps: nanoseconds, or in the unit of the time; None where it is not known.
        tolerance: how far an interval may be from it, as a share of it.
        reward_at_next: whether a reward is that of the step that ends in its observation.
        step_seconds: the same in seconds; None where it is not known, or has another unit.
        columns: the names that a row must have; none where observations are arrays.
        time_column: the name of the time in a row; None without one.
    """

    text: str
    columns: tuple[str, ...]
    time_column: str | None
    step: float | None
    step_seconds: float | None
    tolerance: float
    reward_at_next: bool

    def numbers(self, observation: Any, at: Time | None) -> Float[np.ndarray, " k"]:
        """The observation as numbers. Raises StepRefusedError where it is none."""
        ...

    def reward_of(self, row: Mapping[str, Any]) -> float | None:
        """The reward that follows from the columns of a row; None where they are not there."""
        ...

    def time_of(self, at: Any) -> Time | None:
        """A time as it is compared; None for None. Raises StepRefusedError where it is none."""
        ...

    def restored(self, rows: Float[np.ndarray, "n k"]) -> np.ndarray:
        """Observations as the feature map takes them."""
        ...

    def parts(self, rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n p"] | None:
        """The numbers of the observations that are looked at one by one; None where there are none."""
        ...

    @property
    def part_names(self) -> tuple[str, ...]:
        """What the columns of `parts` are called."""
        ...


def form_of(site: AnySite, *, step: float | None, reward_at_next: bool | None) -> StepForm:
    """The form of a site's observations.

    Args:
        site: of the agent.
        step: between steps, as `step_of` gives it; None for that of the mapping, or for none.
        reward_at_next: None for that of the mapping, or for False.

    Raises:
        InvalidValueError: they are neither numbers nor columns.
    """
    if isinstance(site, Site):
        return SpaceForm(site.env.observation_space, step=step, reward_at_next=bool(reward_at_next))
    if isinstance(site.mapping, LogMapping):
        return ColumnForm(site.mapping, step=step, reward_at_next=reward_at_next)
    raise InvalidValueError("the sites of this workload have neither environments nor a mapping, as a feed needs")


class SpaceForm:
    """Observations of a space of numbers, as an environment would give them."""

    def __init__(self, space: gymnasium.Space[Any], *, step: float | None, reward_at_next: bool) -> None:
        """Raises InvalidValueError where the space is none of numbers."""
        if space.shape is None or space.dtype is None or space.dtype.kind not in "fiub":
            raise InvalidValueError(
                f"observations of {space} are no array of numbers; a feed takes an array, or columns by a mapping"
            )
        self._shape, self._dtype = space.shape, space.dtype
        self.text = f"shape {space.shape} and type {space.dtype}"
        self.columns: tuple[str, ...] = ()
        self.time_column: str | None = None
        self.step, self.tolerance, self.reward_at_next = step, 0.1, reward_at_next
        self.step_seconds = None if step is None else step / _SECOND

    def numbers(self, observation: Any, at: Time | None) -> Float[np.ndarray, " k"]:
        """See `StepForm`."""
        del at
        try:
            given = np.asarray(observation, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise StepRefusedError(f"the observation {_shown(observation)} is no array of numbers") from None
        if given.shape != self._shape:
            raise StepRefusedError(f"the observation has shape {given.shape}; it must be of {self.text}")
        if not np.isfinite(given).all():
            raise StepRefusedError(f"the observation {_shown(observation)} has an entry that is not finite")
        with np.errstate(over="ignore", invalid="ignore"):
            kept = given.astype(self._dtype).astype(np.float64).reshape(-1)
        if not np.isfinite(kept).all() or (self._dtype.kind != "f" and (kept != given.reshape(-1)).any()):
            raise StepRefusedError(f"the observation {_shown(observation)} does not fit into {self.text}")
        return kept

    def reward_of(self, row: Mapping[str, Any]) -> float | None:
        """See `StepForm`."""
        return None

    def time_of(self, at: Any) -> Time | None:
        """A datetime, an ISO 8601 text, or seconds since 1970."""
        if at is None:
            return None
        if isinstance(at, datetime):
            return _nanoseconds(at)
        if isinstance(at, str):
            return _stamp(at, "")
        return round(_finite(at, "the time") * _SECOND)

    def restored(self, rows: Float[np.ndarray, "n k"]) -> np.ndarray:
        """See `StepForm`."""
        return rows.astype(self._dtype).reshape(len(rows), *self._shape)

    def parts(self, rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n p"] | None:
        """See `StepForm`."""
        return parts_of(list(self.restored(rows)))

    @property
    def part_names(self) -> tuple[str, ...]:
        """See `StepForm`."""
        return ()


class ColumnForm:
    """The columns of a mapping, by their names, or as a vector in the mapping's order."""

    def __init__(self, mapping: LogMapping, *, step: float | None, reward_at_next: bool | None) -> None:
        self._mapping = mapping
        self._codes = {
            name: {text: float(place) for place, text in enumerate(texts)}
            for name, texts in mapping.categories.items()
        }
        self.text = "the columns " + ", ".join(mapping.observation)
        self.columns = tuple(name for name in mapping.observation if name not in CLOCK)
        self.time_column = mapping.time
        self.step = mapping.step if step is None else step
        # A numeric time has a unit of its own, and far fewer of them in a step than there are nanoseconds.
        self.step_seconds = self.step / _SECOND if self.step is not None and self.step >= _SECOND / 1000 else None
        self.tolerance = mapping.tolerance
        self.reward_at_next = mapping.reward_at_next if reward_at_next is None else reward_at_next

    def numbers(self, observation: Any, at: Time | None) -> Float[np.ndarray, " k"]:
        """See `StepForm`."""
        names = self._mapping.observation
        if isinstance(observation, Mapping):
            return np.array([self._number(name, observation, at) for name in names])
        if not isinstance(observation, Sequence | np.ndarray) or isinstance(observation, str):
            raise StepRefusedError(f"the observation {_shown(observation)} is no row; send {self.text}")
        if len(observation) != len(names):
            raise StepRefusedError(f"the observation has {len(observation)} values; send {self.text}")
        return self.numbers(dict(zip(names, observation, strict=True)), at)

    def _number(self, name: str, row: Mapping[str, Any], at: Time | None) -> float:
        if name in CLOCK and name not in row:
            return self._clock(name, at)
        if name not in row:
            raise StepRefusedError(f"the row has no column {name!r}; it must have {self.text}")
        value = row[name]
        codes = self._codes.get(name)
        if codes is not None and isinstance(value, str):
            if value.strip() in codes:
                return codes[value.strip()]
            raise StepRefusedError(f"{name} is {_shown(value)}; it must be one of {', '.join(codes)}")
        return _finite(value, name)

    def _clock(self, name: str, at: Time | None) -> float:
        if at is None:
            raise StepRefusedError(f"the step has no time, and {name} follows from it; send `at`")
        try:
            return float(clock_column(name, np.array([at]))[0])
        except TableError as failure:
            raise StepRefusedError(str(failure)) from None

    def reward_of(self, row: Mapping[str, Any]) -> float | None:
        """See `StepForm`; nan where a column is there and its value unknown."""
        formula = self._mapping.reward
        if not all(name in row for name in formula.columns):
            return None
        missing = (None, *self._mapping.missing)
        if any(row[name] in missing for name in formula.columns):
            return float("nan")
        values = {name: np.array([_finite(row[name], name)]) for name in formula.columns}
        return float(formula(values, 1)[0])

    def time_of(self, at: Any) -> Time | None:
        """A datetime, a text as the mapping says, or a number.

        It is one of seconds since 1970 where the time step is a duration, else in the unit of the time.
        """
        if at is None:
            return None
        if isinstance(at, datetime):
            return _nanoseconds(at)
        if isinstance(at, str) and not is_number(at):
            return _stamp(at, self._mapping.time_format)
        number = _finite(at, "the time")
        return number if self.step_seconds is None else round(number * _SECOND)

    def restored(self, rows: Float[np.ndarray, "n k"]) -> np.ndarray:
        """See `StepForm`."""
        return rows

    def parts(self, rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n p"] | None:
        """See `StepForm`."""
        return rows if self.part_names else None

    @property
    def part_names(self) -> tuple[str, ...]:
        """See `StepForm`."""
        names = self._mapping.observation
        return names if len(names) <= MOST_PARTS else ()


def _finite(value: Any, what: str) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise StepRefusedError(f"{what} is {_shown(value)}; it must be a number") from None
    if not np.isfinite(number):
        raise StepRefusedError(f"{what} is {_shown(value)}; it must be finite")
    return number


def _stamp(text: str, form: str) -> int:
    found = stamp_nanoseconds(text, form)
    if found is None:
        shape = f"a stamp as {form}" if form else "ISO 8601, as 2026-03-01T17:00:00+01:00"
        raise StepRefusedError(f"the time is {_shown(text)}; it must be {shape}")
    return found


def _nanoseconds(at: datetime) -> int:
    since = (at.replace(tzinfo=UTC) if at.tzinfo is None else at) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * _SECOND + since.microseconds * 1000


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
