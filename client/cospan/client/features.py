"""Feature maps ready to use: one-hot, tabular, tile coding, radial basis functions, Fourier.

All of them keep the two promises of `cospan.client.workload.FeatureMap`:

* bounded, ‖φ(s)‖ ≤ 1 for every observation (boxes are clipped to their domain first), and
* no nonzero constant function in their span. The differential value is known up to a constant only; with a
  constant in the span the TD system is singular and the weights drift along it. How each map leaves the
  constant out stands in its docstring. A span that avoids the constants over the whole domain may come close
  to them where the chain goes: a reference state should be one that is often visited.

Sources: Sutton and Barto, "Reinforcement Learning", 2nd edition (2018), section 9.5; for the Fourier basis
Konidaris, Osentoski and Thomas, "Value function approximation in reinforcement learning using the Fourier
basis", AAAI 2011.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cospan.client.feature_domain import Bounds, Domain, per_coordinate, tensor_product

_NORM_SLACK = 1e-9  # rounding of rows whose norm is meant to be one


def fingerprint(kind: str, *parameters: bytes) -> str:
    """`kind` and sixteen hexadecimal digits of a SHA-256 over the kind and each parameter with its length."""
    digest = hashlib.sha256(kind.encode())
    for parameter in parameters:
        digest.update(len(parameter).to_bytes(8, "little"))
        digest.update(parameter)
    return f"{kind}-{digest.hexdigest()[:16]}"


class BatchFeatures(ABC):
    """A feature map that computes one observation as a batch of one."""

    __slots__ = ()

    @abstractmethod
    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        """φ of several observations, shape (n, d)."""

    def __call__(self, observation: Any) -> Float[np.ndarray, " d"]:
        """φ of one observation, shape (d,)."""
        row: np.ndarray = self.batch((observation,))[0]
        return row


def _float_bytes(values: Sequence[float] | np.ndarray) -> bytes:
    return np.asarray(values, dtype="<f8").tobytes()


def _int_bytes(values: Sequence[int]) -> bytes:
    return np.asarray(values, dtype="<i8").tobytes()


def _states(observations: Any, states: int) -> Int[np.ndarray, " n"]:
    """The observations as indices.

    Raises:
        ValueError: one is no integer in 0 … states − 1. A float that is whole, as 3.0, counts as an integer; numpy
            would make 3 of 3.7 and of True, the largest state of −1, and any number of a text.
    """
    values = np.asarray(observations).reshape(-1)
    if not values.size:
        return np.empty(0, np.int64)
    kind = values.dtype.kind
    if kind not in "iuf":
        raise _no_state(values[0], states)
    # NaN compares as false. Compared before they are converted: 1e300 and 2⁶⁴ − 1 are no int64.
    if kind == "f" or not (values.min() >= 0 and values.max() < states):
        allowed = (values >= 0) & (values < states) & (values == np.floor(values))
        if not allowed.all():
            raise _no_state(values[~allowed][0], states)
    return values.astype(np.int64, copy=False)


def _state(observation: Any, states: int) -> int:
    """One observation as an index; see `_states`."""
    if isinstance(observation, np.integer):
        observation = int(observation)
    if type(observation) is not int:
        values = np.asarray(observation)
        if values.size != 1:
            raise ValueError(f"an observation of shape {values.shape} is not a state: one integer is needed")
        return int(_states(values, states)[0])
    if not 0 <= observation < states:
        raise _no_state(observation, states)
    return observation


def _no_state(observation: Any, states: int) -> ValueError:
    text = repr(observation.item() if isinstance(observation, np.generic) else observation)[:80]
    return ValueError(f"observation {text} is not a state: allowed are the integers 0 to {states - 1}")


@dataclass(frozen=True, slots=True)
class OneHotFeatures:
    """The indicator of each state of a finite chain but one, φ_i(s) = 1[s = i], d = states − 1.

    The indicators of all states sum to the constant one; without the reference state every function in the
    span is zero there, so no constant but zero is left. The weights of V are then V(i) − V(reference).
    Observations are integers.

    Attributes:
        states: number of states, at least 2.
        reference: the state whose indicator is left out; φ(reference) = 0.
    """

    states: int
    reference: int = 0

    def __post_init__(self) -> None:
        if self.states < 2:
            raise ValueError(f"states = {self.states}: one-hot features need at least 2 states")
        if not 0 <= self.reference < self.states:
            raise ValueError(f"reference = {self.reference}: allowed are 0 to {self.states - 1}")

    @property
    def dim(self) -> int:
        """d = states − 1."""
        return self.states - 1

    @property
    def fingerprint(self) -> str:
        """`one-hot-` and a hash of the number of states and the reference."""
        return fingerprint("one-hot", _int_bytes((self.states, self.reference)))

    def __call__(self, observation: Any) -> Float[np.ndarray, " d"]:
        """φ of one state, shape (d,)."""
        state = _state(observation, self.states)
        row = np.zeros(self.states - 1)
        if state != self.reference:
            row[state - (state > self.reference)] = 1.0
        return row

    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        """φ of several states, shape (n, d)."""
        states = _states(observations, self.states)
        rows = np.zeros((states.size, self.dim))
        present = np.flatnonzero(states != self.reference)
        chosen = states[present]
        rows[present, chosen - (chosen > self.reference)] = 1.0
        return rows


@dataclass(frozen=True, eq=False, slots=True)
class TabularFeatures:
    """Given features of a finite chain: row s of a matrix is φ(s). Observations are integers.

    Attributes:
        matrix: Φ, shape (states, d), copied and made read-only. Each row's norm is at most one and no
            constant function is in the span of the columns; both are checked.
    """

    matrix: Float[np.ndarray, "s d"]

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64, order="C")
        if matrix.ndim != 2:
            raise ValueError(
                f"the features of a finite chain are a matrix (states, d), not of shape {matrix.shape}"
            )
        norm = float(np.sqrt((matrix * matrix).sum(axis=1)).max(initial=0.0))
        if not norm <= 1.0 + _NORM_SLACK:
            raise ValueError(
                f"a feature vector has norm {norm:.6g}: at most 1 is allowed; divide by the largest norm"
            )
        ones = np.ones(len(matrix))
        nearest = matrix @ np.linalg.lstsq(matrix, ones, rcond=None)[0]
        if np.linalg.norm(ones - nearest) < 1e-8 * math.sqrt(len(matrix)):
            raise ValueError("a constant function is in the span of the features: centre them or drop a column")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    @property
    def dim(self) -> int:
        """d, the number of columns."""
        return int(self.matrix.shape[1])

    @property
    def fingerprint(self) -> str:
        """`tabular-` and a hash of the matrix."""
        return fingerprint("tabular", _int_bytes(self.matrix.shape), _float_bytes(self.matrix))

    def __call__(self, observation: Any) -> Float[np.ndarray, " d"]:
        """φ of one state, shape (d,): a read-only row of the matrix."""
        row: np.ndarray = self.matrix[_state(observation, len(self.matrix))]
        return row

    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        """φ of several states, shape (n, d)."""
        rows: np.ndarray = self.matrix[_states(observations, len(self.matrix))]
        return rows


@dataclass(frozen=True, slots=True, init=False)
class TileCodingFeatures(BatchFeatures):
    """Several partitions of a box into tiles, shifted against each other; one tile of each is active.

    A feature is the indicator of a tile less the tile's share of the box, times a number that makes ‖φ‖ ≤ 1.
    Each has mean zero over the box, and so has every function in the span, hence no constant but zero is
    in it. The indicators of a tiling sum to one, so the first tile of each tiling is left out.

    The tilings are shifted by odd multiples 1, 3, 5, … of 1/T of a tile along the coordinates (Sutton and
    Barto 2018, section 9.5.4), between −½ and ½ of a tile; the tiles at the edges reach to the edge. With T a
    power of two no two tilings share an edge inside the box, and the features are linearly independent on it.

    Attributes:
        domain: the box.
        tiles: tiles along each coordinate, at least 2 each.
        tilings: T, a power of two.
    """

    domain: Domain
    tiles: tuple[int, ...]
    tilings: int
    _shifts: Float[np.ndarray, "t k"] = field(repr=False, compare=False)
    _inactive: Float[np.ndarray, " d"] = field(repr=False, compare=False)
    _scale: float = field(repr=False, compare=False)

    def __init__(self, low: Bounds, high: Bounds, tiles: int | Sequence[int] = 8, tilings: int = 8) -> None:
        domain = Domain.of(low, high)
        if tilings < 1 or tilings & (tilings - 1):
            raise ValueError(f"tilings = {tilings}: a power of two (1, 2, 4, 8, …) is needed")
        counts = per_coordinate("tiles", tiles, domain.coordinates, 2)
        odd = 2 * np.arange(domain.coordinates) + 1
        shifts = ((np.arange(tilings)[:, None] * odd) % tilings + 0.5) / tilings - 0.5
        shares = np.stack([_tile_shares(counts, shift)[1:] for shift in shifts])
        squares = np.sum(shares * shares, axis=1)
        largest = np.maximum(squares, squares + 1.0 - 2.0 * shares.min(axis=1))
        scale = 1.0 / math.sqrt(float(largest.sum()))
        values = (domain, counts, tilings, shifts, -scale * shares.reshape(-1), scale)
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    @property
    def dim(self) -> int:
        """d = T (number of tiles − 1)."""
        return self.tilings * (math.prod(self.tiles) - 1)

    @property
    def fingerprint(self) -> str:
        """`tiles-` and a hash of the box, the tiles and the tilings."""
        return fingerprint("tiles", self.domain.content, _int_bytes((*self.tiles, self.tilings)))

    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        """φ of several observations, shape (n, d)."""
        unit = self.domain.unit(observations)
        last = np.array(self.tiles) - 1
        along = np.floor(unit[:, None, :] * (last + 1.0) - self._shifts).astype(np.int64)
        strides = np.cumprod((1, *self.tiles[:0:-1]))[::-1]
        cells = np.minimum(np.maximum(along, 0), last) @ strides - 1
        rows = np.tile(self._inactive, (len(cells), 1))
        which, tiling = np.nonzero(cells >= 0)
        rows[which, cells[which, tiling] + tiling * (math.prod(self.tiles) - 1)] += self._scale
        return rows


def _tile_shares(counts: tuple[int, ...], shifts: Float[np.ndarray, " k"]) -> Float[np.ndarray, " m"]:
    """The share of the box of each tile of one tiling."""
    along = []
    for count, shift in zip(counts, shifts, strict=True):
        widths = np.full(count, 1.0 / count)
        widths[0] += shift / count
        widths[-1] -= shift / count
        along.append(widths[None, :])
    shares: np.ndarray = tensor_product(along)[0]
    return shares


@dataclass(frozen=True, slots=True, init=False)
class RadialBasisFeatures(BatchFeatures):
    """Normalised Gaussian bumps on a grid of centres, each less its mean over the box.

    ψ_i(x) = g_i(x) / Σ_j g_j(x), g_i(x) = exp(−½ Σ_c ((x_c − centre_ic) / (width · spacing_c))²), m_i the
    mean of ψ_i over the box, φ_i = (ψ_i − m_i) / √(1 + ‖m‖²). The ψ are not negative and sum to one, so
    ‖ψ − m‖² ≤ 1 + ‖m‖² and ‖φ‖ ≤ 1. The φ sum to zero, so the first is left out. Gaussians of one width about
    different centres are linearly independent: Σ a_i ψ_i = c means Σ (a_i − c) g_i = 0, so all a_i = c; with
    one bump left out (its a is 0) all are zero, and so no constant but zero is in the span.

    Attributes:
        domain: the box; centres stand on its edges and evenly between.
        centres: centres along each coordinate, at least 2 each.
        width: standard deviation of the bumps in spacings of the grid. Above about 1 the features become
            almost linearly dependent.
    """

    domain: Domain
    centres: tuple[int, ...]
    width: float
    _mean: Float[np.ndarray, " d"] = field(repr=False, compare=False)
    _scale: float = field(repr=False, compare=False)

    def __init__(self, low: Bounds, high: Bounds, centres: int | Sequence[int] = 6, width: float = 0.5) -> None:
        domain = Domain.of(low, high)
        if not 0.0 < width < math.inf:
            raise ValueError(f"width = {width}: a positive number of grid spacings is needed")
        counts = per_coordinate("centres", centres, domain.coordinates, 2)
        middles = (np.arange(4096) + 0.5) / 4096
        along = [_bumps(middles, count, width).mean(axis=0, keepdims=True) for count in counts]
        mean = tensor_product(along)[0, 1:]
        values = (domain, counts, float(width), mean, 1.0 / math.sqrt(1.0 + float(mean @ mean)))
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    @property
    def dim(self) -> int:
        """d = number of centres − 1."""
        return math.prod(self.centres) - 1

    @property
    def fingerprint(self) -> str:
        """`rbf-` and a hash of the box, the centres and the width."""
        return fingerprint("rbf", self.domain.content, _int_bytes(self.centres), _float_bytes((self.width,)))

    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        """φ of several observations, shape (n, d); on a grid, bumps are products over coordinates."""
        unit = self.domain.unit(observations)
        along = [_bumps(unit[:, c], count, self.width) for c, count in enumerate(self.centres)]
        rows: np.ndarray = (tensor_product(along)[:, 1:] - self._mean) * self._scale
        return rows


def _bumps(unit: Float[np.ndarray, " n"], count: int, width: float) -> Float[np.ndarray, "n m"]:
    """The normalised bumps of one coordinate u ∈ [0, 1]."""
    distance = (unit[:, None] * (count - 1) - np.arange(count)) / width
    exponent = -0.5 * distance * distance
    # The largest bump becomes one: narrow ones would all underflow.
    exponent -= exponent.max(axis=1, keepdims=True)
    bumps: np.ndarray = np.exp(exponent)
    bumps /= bumps.sum(axis=1, keepdims=True)
    return bumps


@dataclass(frozen=True, slots=True, init=False)
class FourierFeatures(BatchFeatures):
    """Products of cosines over a box; sines and cosines along periodic coordinates, like the hour of the day.

    Along a plain coordinate, u ∈ [0, 1]: cos(π k u), k = 0 … order. Along a periodic one, whose `high` is the
    same place as its `low`: 1, cos(2π k u) and sin(2π k u), k = 1 … order. The features are all products of
    one function for each coordinate, except the product of the constants: each has mean zero over the box,
    and so has every function in the span, hence no constant but zero is in it. The squares of a coordinate's
    functions sum to at most 1 + order, so division by √(Π (1 + order_c) − 1) gives ‖φ‖ ≤ 1.

    Attributes:
        domain: the box.
        order: the highest frequency along each coordinate.
        periodic: which coordinates are periodic; none unless said.
    """

    domain: Domain
    order: tuple[int, ...]
    periodic: tuple[bool, ...]

    def __init__(
        self, low: Bounds, high: Bounds, order: int | Sequence[int] = 3, periodic: Sequence[bool] | None = None
    ) -> None:
        domain = Domain.of(low, high)
        orders = per_coordinate("order", order, domain.coordinates, 0)
        flags = (False,) * domain.coordinates if periodic is None else tuple(map(bool, periodic))
        if len(flags) != domain.coordinates or not any(orders):
            raise ValueError(
                f"order = {order}, periodic = {periodic}: one entry for each coordinate, not all orders 0"
            )
        for name, value in zip(self.__slots__, (domain, orders, flags), strict=True):
            object.__setattr__(self, name, value)

    @property
    def dim(self) -> int:
        """d = Π (1 + order, or 1 + 2 · order where periodic) − 1."""
        sizes = (1 + order * (1 + flag) for order, flag in zip(self.order, self.periodic, strict=True))
        return math.prod(sizes) - 1

    @property
    def fingerprint(self) -> str:
        """`fourier-` and a hash of the box, the orders and the periodic coordinates."""
        return fingerprint("fourier", self.domain.content, _int_bytes(self.order), _int_bytes(self.periodic))

    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        """φ of several observations, shape (n, d)."""
        unit = self.domain.unit(observations)
        along = [
            fourier_along(unit[:, c], order, periodic=flag)
            for c, (order, flag) in enumerate(zip(self.order, self.periodic, strict=True))
        ]
        bound = math.sqrt(math.prod(1 + order for order in self.order) - 1)
        rows: np.ndarray = tensor_product(along)[:, 1:] / bound
        return rows


def fourier_along(unit: Float[np.ndarray, " n"], order: int, *, periodic: bool) -> Float[np.ndarray, "n m"]:
    """The Fourier functions of one coordinate u ∈ [0, 1], the constant first: see `FourierFeatures`."""
    angle = unit[:, None] * (np.arange(1, order + 1) * (2.0 * math.pi if periodic else math.pi))
    parts = [np.ones((len(unit), 1)), np.cos(angle)]
    if periodic:
        parts.append(np.sin(angle))
    return np.concatenate(parts, axis=1)
