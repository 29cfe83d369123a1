"""Boxes on which feature maps of real observations live, and products of functions of single coordinates."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

Bounds: TypeAlias = Sequence[float] | Float[np.ndarray, " k"]
"""One number for each coordinate of a box observation."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A box of observations, low ≤ x ≤ high in every coordinate, mapped to the unit cube.

    Attributes:
        low: lower bounds, finite.
        high: upper bounds, finite, each above its lower bound.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    _low: Float[np.ndarray, " k"] = field(init=False, repr=False, compare=False)
    _high: Float[np.ndarray, " k"] = field(init=False, repr=False, compare=False)
    _scale: Float[np.ndarray, " k"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        low, high = np.array(self.low, dtype=np.float64), np.array(self.high, dtype=np.float64)
        if not (len(low) == len(high) > 0 and np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError(
                f"low = {self.low}, high = {self.high}: as many finite bounds above as below are needed"
            )
        if not (low < high).all():
            raise ValueError(f"low = {self.low}, high = {self.high}: each low must be below its high")
        for name, value in (("_low", low), ("_high", high), ("_scale", 1.0 / (high - low))):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, low: Bounds, high: Bounds) -> "Domain":
        """The domain with the given bounds, for example those of a `gymnasium.spaces.Box`."""
        return cls(tuple(map(float, low)), tuple(map(float, high)))

    @property
    def coordinates(self) -> int:
        """k, the length of an observation."""
        return len(self.low)

    @property
    def content(self) -> bytes:
        """The bounds as bytes, for a fingerprint."""
        return np.array((self.low, self.high), dtype="<f8").tobytes()

    def unit(self, observations: Any) -> Float[np.ndarray, "n k"]:
        """Several observations, clipped to the domain, as points of the unit cube.

        Raises:
            ValueError: an observation has another length, or an entry that is not a number.
        """
        points = np.asarray(observations, dtype=np.float64)
        if points.size == 0:
            points = points.reshape(0, self.coordinates)
        if points.ndim != 2 or points.shape[1] != self.coordinates:
            raise ValueError(f"observations of shape {points.shape}: (n, {self.coordinates}) is needed")
        if np.isnan(points).any():
            raise ValueError("an observation has an entry that is not a number")
        unit: np.ndarray = (np.minimum(np.maximum(points, self._low), self._high) - self._low) * self._scale
        return unit


def per_coordinate(name: str, value: int | Sequence[int], coordinates: int, least: int) -> tuple[int, ...]:
    """One integer for each coordinate from one integer or a sequence, each at least `least`."""
    counts = (value,) * coordinates if isinstance(value, int) else tuple(int(entry) for entry in value)
    if len(counts) != coordinates or min(counts) < least:
        raise ValueError(
            f"{name} = {value}: an integer or {coordinates} integers, each at least {least}, are needed"
        )
    return counts


def tensor_product(factors: Sequence[Float[np.ndarray, "n _"]]) -> Float[np.ndarray, "n p"]:
    """All products of one column from each factor, row by row; the last factor's column varies fastest."""

    def outer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        products: np.ndarray = left[:, :, None] * right[:, None, :]
        return products.reshape(len(left), left.shape[1] * right.shape[1])

    return reduce(outer, factors)
