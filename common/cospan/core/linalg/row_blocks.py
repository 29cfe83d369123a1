"""Products of tall matrices, taken in blocks of rows that stay in a core's cache, and large ones on two cores."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
from jaxtyping import Float

_BLOCK_NUMBERS = 32_768
"""256 KiB: room for a block and what is made of it in the cache of one core."""
_HALVED_FROM_NUMBERS = 1_048_576
"""8 MiB: from here on half of the work takes longer, by far, than to start a thread for it."""

T = TypeVar("T")


def in_halves(matrix: Float[np.ndarray, "d r"], work: Callable[[slice], T]) -> list[T]:
    """What the work gives for the upper and for the lower rows of a large matrix, done at the same time.

    Of a smaller one, for all rows. Where the rows are cut follows from the shape alone, and what the halves give
    comes in their order, so neither the number of cores nor who is done first changes a bit.
    """
    rows, rank = matrix.shape
    if rows * rank < _HALVED_FROM_NUMBERS:
        return [work(slice(0, rows))]
    step = _rows_of_a_block(rank)
    cut = step * (rows // (2 * step))
    with ThreadPoolExecutor(1, "cospan-rows") as helper:
        lower = helper.submit(work, slice(cut, rows))
        upper = work(slice(0, cut))
        return [upper, lower.result()]


def copied_blocks(
    matrix: Float[np.ndarray, "d r"], rows: slice
) -> Iterator[tuple[slice, Float[np.ndarray, "b r"]]]:
    """The rows of each block of these rows, and a copy of them that lasts until the next.

    Products of what lies in a core's own cache are quicker by more than the copy takes, and the layout of the
    matrix changes no bit of them.
    """
    rank = matrix.shape[1]
    step = _rows_of_a_block(rank)
    copy = np.empty((step, rank))
    for start in range(rows.start, rows.stop, step):
        block = slice(start, min(start + step, rows.stop))
        copied = copy[: block.stop - start]
        np.copyto(copied, matrix[block])
        yield block, copied


def gram_matrix(matrix: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "r r"]:
    """AᵀA; an entry that overflows is infinite, or not a number, without a warning."""
    return total_of(in_halves(matrix, partial(_gram_of_rows, matrix)))


def _gram_of_rows(matrix: Float[np.ndarray, "d r"], rows: slice) -> Float[np.ndarray, "r r"]:
    total = np.zeros((matrix.shape[1], matrix.shape[1]))
    with np.errstate(over="ignore", invalid="ignore"):  # a thread does not inherit it
        for _, block in copied_blocks(matrix, rows):
            total += block.T @ block
    return total


def total_of(parts: list[Float[np.ndarray, "r r"]]) -> Float[np.ndarray, "r r"]:
    """Their sum, in order; the first of them is written to."""
    with np.errstate(over="ignore", invalid="ignore"):
        for part in parts[1:]:
            parts[0] += part
    return parts[0]


def _rows_of_a_block(rank: int) -> int:
    return max(1, _BLOCK_NUMBERS // rank)
