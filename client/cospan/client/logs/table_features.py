"""Features of table columns: cyclic, numeric and categorical ones, and products of them, from a TOML section.

Each column has functions ψ_1 … ψ_m that are not negative and sum to one: hats of linear interpolation between
knots, around a circle where the column is cyclic, or indicators of categories. φ has ψ_2 … ψ_m of every column and,
for named products, all products of these. With the first function of each column left out, these and the constant
are a basis of what all products span; so no constant but zero is in the span of φ. The squares of a block's
functions sum to at most one; with b blocks φ is divided by √b, and ‖φ‖ ≤ 1.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.feature_domain import tensor_product
from cospan.client.features import BatchFeatures, fingerprint

KINDS = ("cyclic", "numeric", "categorical")


@dataclass(frozen=True, slots=True)
class ColumnFeatures:
    """The functions of one column.

    Attributes:
        name: of the column.
        kind: cyclic, numeric or categorical.
        knots: ascending: where the hats are 1; of a categorical column 0 … m − 1, the numbers of its categories.
        period: of a cyclic column; the first knot plus the period is the first knot again. Else 0.
    """

    name: str
    kind: str
    knots: tuple[float, ...]
    period: float = 0.0

    def __post_init__(self) -> None:
        knots = np.asarray(self.knots, dtype=np.float64)
        least = 3 if self.kind == "cyclic" else 2
        if self.kind not in KINDS:
            raise ValueError(f"features of {self.name!r}: kind {self.kind!r} is none of {', '.join(KINDS)}")
        if len(knots) < least or not np.isfinite(knots).all() or not (np.diff(knots) > 0.0).all():
            raise ValueError(
                f"features of {self.name!r}: the knots of a {self.kind} column are {least} or more ascending "
                f"numbers, and not {self.knots}"
            )
        if self.kind == "cyclic" and not knots[-1] < knots[0] + self.period < math.inf:
            raise ValueError(
                f"features of {self.name!r}: its knots span {knots[-1] - knots[0]:g}, so its period must be "
                f"larger, and it is {self.period:g}"
            )

    @property
    def size(self) -> int:
        """m, the number of functions."""
        return len(self.knots)

    def functions(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n m"]:
        """ψ of each value, rows summing to one; values outside the knots count as at the nearest one."""
        knots = np.asarray(self.knots)
        rows = np.zeros((len(values), self.size))
        every = np.arange(len(values))
        if self.kind == "categorical":
            rows[every, np.clip(values, 0, self.size - 1).astype(np.intp)] = 1.0
            return rows
        if self.kind == "cyclic":
            values = np.mod(values - knots[0], self.period) + knots[0]
            knots = np.append(knots, knots[0] + self.period)
        values = np.clip(values, knots[0], knots[-1])
        below = np.clip(np.searchsorted(knots, values, side="right") - 1, 0, len(knots) - 2)
        share = (values - knots[below]) / (knots[below + 1] - knots[below])
        rows[every, below] = 1.0 - share
        rows[every, (below + 1) % self.size] += share
        return rows

    def outside(self, values: Float[np.ndarray, " n"]) -> int:
        """How many of the values lie outside the knots; 0 of a cyclic or categorical column."""
        if self.kind != "numeric":
            return 0
        return int(((values < self.knots[0]) | (values > self.knots[-1])).sum())


@dataclass(frozen=True, slots=True)
class TableFeatures(BatchFeatures):
    """φ of observations whose coordinates are the columns, in their order.

    Attributes:
        columns: the functions of each coordinate.
        products: sets of columns, by name; with each of them all products of fewer of its columns.
    """

    columns: tuple[ColumnFeatures, ...]
    products: tuple[tuple[str, ...], ...] = ()
    _blocks: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"features need one entry for each of one or more columns, and not {names}")
        found: dict[tuple[int, ...], None] = {(place,): None for place in range(len(names))}
        for product in self.products:
            unknown = [name for name in product if name not in names]
            if unknown or len(set(product)) < max(2, len(product)):
                raise ValueError(
                    f"the product {list(product)} must name two or more different columns of {', '.join(names)}"
                )
            places = sorted(names.index(name) for name in product)
            for size in range(2, len(places) + 1):
                found |= dict.fromkeys(itertools.combinations(places, size))
        object.__setattr__(self, "_blocks", tuple(sorted(found, key=lambda block: (len(block), block))))

    @property
    def dim(self) -> int:
        """d = Σ over the blocks of Π (m − 1)."""
        return sum(math.prod(self.columns[place].size - 1 for place in block) for block in self._blocks)

    @property
    def fingerprint(self) -> str:
        """`table-` and a hash of columns, knots and products."""
        parts = []
        for column in self.columns:
            parts += [column.name.encode(), column.kind.encode()]
            parts.append(np.array((column.period, *column.knots), dtype="<f8").tobytes())
        return fingerprint("table", *parts, repr(self._blocks).encode())

    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        """φ of several observations, shape (n, d).

        Raises:
            ValueError: observations have another number of coordinates, or an entry that is not a number.
        """
        values = np.asarray(observations, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.columns):
            raise ValueError(f"observations of shape {values.shape}: (n, {len(self.columns)}) is needed")
        if np.isnan(values).any():
            raise ValueError("an observation has an entry that is not a number")
        parts = [column.functions(values[:, place])[:, 1:] for place, column in enumerate(self.columns)]
        blocks = [tensor_product([parts[place] for place in block]) for block in self._blocks]
        rows: np.ndarray = np.concatenate(blocks, axis=1)
        rows *= 1.0 / math.sqrt(len(blocks))
        return rows


def even_knots(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` knots from low to high, both included."""
    return tuple(np.linspace(low, high, count).tolist())


def cyclic_knots(period: float, count: int) -> tuple[float, ...]:
    """`count` knots around a circle, the first at 0."""
    return tuple((np.arange(count) * (period / count)).tolist())


def quantile_knots(values: Sequence[float] | Float[np.ndarray, " n"], count: int) -> tuple[float, ...]:
    """Knots at evenly spaced quantiles, three significant digits each, without repetitions."""
    found = np.quantile(np.asarray(values, dtype=np.float64), np.linspace(0.0, 1.0, count))
    return tuple(sorted({float(f"{value:.3g}") for value in found}))
