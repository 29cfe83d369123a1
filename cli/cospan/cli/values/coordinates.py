"""The numbers in an observation, by name or index, whatever the space of the environment is."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float

from cospan.wire.errors import InvalidValueError

NAMES = "observation_names"
"""The attribute of an environment with the names of the entries of its array observations."""
_MOST_LISTED = 30
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Coordinate:
    """One number of an observation.

    Attributes:
        name: for people, and on the command line.
        path: keys and indices that lead to it; empty where the observation is the number.
        is_whole: whether it is an integer.
        low: the least number that the environment's space holds; -inf without a bound.
        high: the largest one; inf without a bound.
    """

    name: str
    path: tuple[Any, ...]
    is_whole: bool
    low: float = -math.inf
    high: float = math.inf

    def of(self, observation: Any) -> float:
        """The number."""
        for key in self.path:
            observation = observation[key]
        return float(observation)

    def changed(self, observation: Any, value: float) -> Any:
        """A copy of an observation with another number here; an integer takes the nearest one."""
        new: Any = round(value) if self.is_whole else value
        if not self.path:
            is_array = isinstance(observation, np.ndarray)
            return np.array(new, observation.dtype) if is_array else type(observation)(new)
        copied = copy.deepcopy(observation)
        return _replaced(copied, self.path, new)


def _replaced(part: Any, path: tuple[Any, ...], value: Any) -> Any:
    """`part` with the number at `path` replaced; tuples and numbers are made again, others are written to."""
    if not path:
        return value
    inner = _replaced(part[path[0]], path[1:], value)
    if isinstance(part, tuple):
        return (*part[: path[0]], inner, *part[path[0] + 1 :])
    part[path[0]] = inner
    return part


def coordinates_of(env: gymnasium.Env[Any, Any]) -> list[Coordinate]:
    """The coordinates of an environment's observations, named as the environment says in `observation_names`.

    Raises:
        InvalidValueError: its observations hold something else than numbers, or it names too many or too few.
    """
    found = list(_inside(env.observation_space, (), ""))
    names = getattr(env.unwrapped, NAMES, None)
    if names is None:
        return found
    if len(names) != len(found):
        raise InvalidValueError(
            f"{NAMES} of the environment has {len(names)} names, and an observation {len(found)} numbers; name each"
        )
    return [replace(each, name=str(name)) for name, each in zip(names, found, strict=True)]


def _inside(space: spaces.Space[Any], path: tuple[Any, ...], name: str) -> Iterator[Coordinate]:
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _inside(inner, (*path, key), f"{name}.{key}" if name else str(key))
    elif isinstance(space, spaces.Tuple):
        for index, inner in enumerate(space.spaces):
            yield from _inside(inner, (*path, index), f"{name}.{index}" if name else str(index))
    elif isinstance(space, spaces.Discrete):
        last = int(space.start + space.n - 1)
        yield Coordinate(name or "state", path, is_whole=True, low=float(space.start), high=float(last))
    elif isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        is_whole = not np.issubdtype(space.dtype, np.floating)
        shape = space.shape or ()
        lows, highs = _bounds(space)
        places = list(np.ndindex(*shape))
        for place in places:
            label = ",".join(map(str, place))
            own = name if len(places) == 1 and name else f"{name}[{label}]" if name else label or "observation"
            yield Coordinate(
                own, (*path, place) if place else path, is_whole, float(lows[place]), float(highs[place])
            )
    else:
        raise InvalidValueError(
            f"the observations of this environment are of a {type(space).__name__} space, which has no numbers to "
            "draw over"
        )


def _bounds(space: spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary) -> tuple[Any, Any]:
    """The least and the largest number at each place of a space of arrays."""
    if isinstance(space, spaces.Box):
        return space.low, space.high
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    return np.zeros(space.shape), np.ones(space.shape)


def chosen(coordinates: Sequence[Coordinate], text: str, flag: str) -> list[Coordinate]:
    """The coordinates that a comma-separated text names, by name or index.

    Raises:
        InvalidValueError: there is no such coordinate, or it is named twice.
    """
    by_name = {each.name: each for each in coordinates}
    found: list[Coordinate] = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        match = by_name.get(word)
        if match is None and word.isdigit() and int(word) < len(coordinates):
            match = coordinates[int(word)]
        if match is None:
            raise InvalidValueError(
                f"there is no coordinate {word!r} in {flag}; an observation has {listing(coordinates)}"
            )
        if match in found:
            raise InvalidValueError(f"coordinate {match.name!r} is twice in {flag}; leave one out")
        found.append(match)
    return found


def fixed(coordinates: Sequence[Coordinate], text: str) -> dict[Coordinate, float]:
    """The numbers that a text as "charge=0.5,hour=7" gives to coordinates.

    Raises:
        InvalidValueError: an entry is not name=number, names no coordinate, or is outside the environment's space.
    """
    found = {}
    for entry in filter(None, (word.strip() for word in text.split(","))):
        name, separator, number = entry.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not separator or not math.isfinite(value):
            raise InvalidValueError(f"{entry!r} in --at must be name=number, for example {coordinates[0].name}=1")
        (match,) = chosen(coordinates, name, "--at") or (None,)
        if match is None:
            raise InvalidValueError(f"{entry!r} in --at must be name=number, for example {coordinates[0].name}=1")
        slack = _ROUNDING * max(1.0, abs(value))  # bounds of single precision: 0.1 is 0.1000000015
        if not match.low - slack <= value <= match.high + slack:
            raise InvalidValueError(
                f"{entry} is outside what this environment observes; {match.name} is {_range(match)}"
            )
        found[match] = value
    return found


def _range(coordinate: Coordinate) -> str:
    """The bounds of a coordinate in words."""
    if math.isinf(coordinate.low):
        return f"at most {coordinate.high:.6g}"
    if math.isinf(coordinate.high):
        return f"at least {coordinate.low:.6g}"
    return f"{coordinate.low:.6g} to {coordinate.high:.6g}"


def listing(coordinates: Sequence[Coordinate], ranges: Mapping[str, tuple[float, float]] | None = None) -> str:
    """The coordinates in words, with ranges where they are known."""
    words = []
    for index, each in enumerate(coordinates[:_MOST_LISTED]):
        name = each.name if each.name == str(index) else f"{each.name} (or {index})"
        if ranges is not None:
            low, high = ranges[each.name]
            name += f" from {low:.4g} to {high:.4g}"
        words.append(name)
    more = len(coordinates) - _MOST_LISTED
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def table_of(coordinates: Sequence[Coordinate], observations: Sequence[Any]) -> Float[np.ndarray, "n k"]:
    """The numbers of observations: a row for each, a column for each coordinate."""
    return np.array([[each.of(observation) for each in coordinates] for observation in observations])
