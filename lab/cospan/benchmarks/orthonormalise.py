"""Time of the QR step by shape, in copies of the matrix: what the memory bus alone would take."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from cospan.benchmarks.tools.paired_timing import in_turns
from cospan.benchmarks.tools.report import SHAPE_COLUMNS, Column, Report, Row, interval_cells, interval_columns
from cospan.core.linalg.subspace import orthonormalise, orthonormality_error

SHAPES = ((20, 3), (1024, 16), (4096, 32), (65_536, 8), (65_536, 32))
CONDITIONS = (1.5, 1e7)
"""About that of a basis after one step, which takes one pass, and the worst that two passes are for."""
NOTES = (
    "copies: the time of one `orthonormalise` in times of np.copyto into an array that is there; in turns.",
    "vs qr: how many times as long np.linalg.qr takes; error: the largest entry of |QᵀQ − I|.",
)
COLUMNS = (
    *SHAPE_COLUMNS,
    Column("condition", "condition", ".2g"),
    Column("milliseconds", "ms", ".3g"),
    *interval_columns("copies", "copies", "copies", ".1f"),
    Column("qr_copies", "numpy's qr", ".1f"),
    Column("speedup_over_qr", "vs qr", ".2f"),
    Column("error", "error", ".1e"),
)


def benchmark(shapes: Sequence[tuple[int, int]], seconds: float, say: Callable[[str], None]) -> Report:
    """Measures each shape at each condition number for about `seconds`."""
    rows = []
    for d, r in shapes:
        for condition in CONDITIONS:
            say(f"{d} × {r}, condition {condition:g}")
            rows.append(_row(conditioned(d, r, condition), condition, seconds))
    return Report("orthonormalise", NOTES, COLUMNS, tuple(rows))


def conditioned(feature_dim: int, rank: int, condition: float) -> Float[np.ndarray, "d r"]:
    """A matrix of this condition number; the logarithms of its singular values are spaced evenly."""
    rng = np.random.default_rng(0)
    left = np.linalg.qr(rng.standard_normal((feature_dim, rank)))[0]
    right = np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    return np.ascontiguousarray(left * np.geomspace(1.0, 1.0 / condition, rank) @ right.T)


def _row(matrix: Float[np.ndarray, "d r"], condition: float, seconds: float) -> Row:
    copy = np.empty_like(matrix)
    ways = (lambda: np.copyto(copy, matrix), lambda: orthonormalise(matrix), lambda: np.linalg.qr(matrix))
    turns = in_turns(ways, rounds=3, seconds=seconds)
    copies, speedup = turns.ratio(1, 0), turns.ratio(2, 1)
    return {
        "feature_dim": matrix.shape[0],
        "rank": matrix.shape[1],
        "condition": condition,
        "milliseconds": 1e3 * turns.median(1),
        "copy_milliseconds": 1e3 * turns.median(0),
        **interval_cells("copies", "copies", copies),
        "qr_copies": turns.ratio(2, 0).value,
        **interval_cells("speedup_over_qr", "speedup", speedup),
        "error": orthonormality_error(orthonormalise(matrix)),
        "rounds": len(turns.seconds),
    }
