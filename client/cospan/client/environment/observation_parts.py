"""The parts of observations as numbers: every one that is a number, and those that no action changes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.environment.ownership import user_code
from cospan.client.workload import Exogenous
from cospan.wire.errors import WorkloadBehaviourError

MOST_PARTS = 32
"""Of an observation with more numbers than this, as of a picture, none is looked at by itself."""


def parts_of(observations: Sequence[Any] | np.ndarray) -> Float[np.ndarray, "m k"]:
    """The numbers of each observation, in one row; no columns where there are too many, or other things.

    A number gives one column, an array one for each entry, a dictionary or tuple those of its values in order.
    """
    first = observations[0]
    too_many = isinstance(first, np.ndarray) and first.size > MOST_PARTS
    rows = None if too_many else _numbers(observations)
    if rows is None or rows.shape[1] > MOST_PARTS or not np.isfinite(rows).all():
        return np.zeros((len(observations), 0))
    return rows


def part_names(observation: Any) -> tuple[str, ...]:
    """What the columns of `parts_of` are called: `observation`, `observation[1]`, `observation['charge']`."""
    names = _names(observation, "observation")
    return tuple(names) if len(names) == parts_of([observation]).shape[1] else ()


def exogenous_of(exogenous: Exogenous, observations: Sequence[Any] | np.ndarray) -> Float[np.ndarray, "m k"]:
    """The exogenous parts of each observation, in one row.

    Raises:
        WorkloadBehaviourError: an observation has no such part, or it is no finite number; or the function that
            gives the parts raised, or gave something else.
    """
    if callable(exogenous):
        with user_code("the workload's function of the exogenous parts failed"):
            found = np.asarray(exogenous(observations), dtype=np.float64)
            found = found.reshape(len(found), -1) if found.ndim else found
        if found.ndim != 2 or len(found) != len(observations):
            raise WorkloadBehaviourError(
                f"the workload's function of the exogenous parts gave an array of shape {found.shape} for "
                f"{len(observations)} observations; it must give a row of numbers for each"
            )
    else:
        columns = [_part(observations, name) for name in exogenous]
        found = np.concatenate(columns, axis=1) if columns else np.zeros((len(observations), 0))
    if not np.isfinite(found).all():
        raise WorkloadBehaviourError(
            "an exogenous part of an observation is not finite; name parts of the observation that are numbers"
        )
    return found


def _part(observations: Sequence[Any] | np.ndarray, name: int | str) -> Float[np.ndarray, "m k"]:
    try:
        part = _numbers([observation[name] for observation in observations])
    except (LookupError, TypeError, ValueError):
        part = None
    if part is None:
        raise WorkloadBehaviourError(
            f"the workload names {name!r} as an exogenous part, and the observation {observations[0]!r} has no "
            "such part that is a number: name places of an array or keys of a dictionary, or give a function"
        )
    return part


def _numbers(values: Sequence[Any] | np.ndarray) -> Float[np.ndarray, "m k"] | None:
    """All numbers of each value in one row; None where something is no number."""
    first = values[0]
    try:
        if isinstance(first, Mapping):
            parts = [_numbers([value[key] for value in values]) for key in first]
        elif isinstance(first, tuple | list):
            parts = [_numbers([value[place] for value in values]) for place in range(len(first))]
        else:
            return np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    except (LookupError, TypeError, ValueError):
        return None
    known = [part for part in parts if part is not None]
    return np.concatenate(known, axis=1) if known and len(known) == len(parts) else None


def _names(value: Any, name: str) -> list[str]:
    if isinstance(value, Mapping):
        return [each for key in value for each in _names(value[key], f"{name}[{key!r}]")]
    if isinstance(value, tuple | list):
        return [each for place, part in enumerate(value) for each in _names(part, f"{name}[{place}]")]
    shape = np.shape(value)
    if not shape:
        return [name]
    return [f"{name}[{', '.join(map(str, place))}]" for place in np.ndindex(*shape)]
