"""Products of tall matrices, taken in blocks of rows that stay in a core's cache."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

_BLOCK_NUMBERS = 32_768
"""256 KiB: room for a block and what is made of it in the cache of one core."""


def copied_blocks(matrix: Float[np.ndarray, "d r"]) -> Iterator[tuple[slice, Float[np.ndarray, "b r"]]]:
    """The rows of each block, and a copy of them that lasts until the next.

    Products of what lies in a core's own cache are quicker by more than the copy takes, and the layout of the
    matrix changes no bit of them.
    """
    rows, rank = matrix.shape
    step = max(1, _BLOCK_NUMBERS // rank)
    copy = np.empty((step, rank))
    for start in range(0, rows, step):
        block = slice(start, min(start + step, rows))
        copied = copy[: block.stop - start]
        np.copyto(copied, matrix[block])
        yield block, copied


def gram_matrix(matrix: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "r r"]:
    """AᵀA."""
    total = np.zeros((matrix.shape[1], matrix.shape[1]))
    for _, block in copied_blocks(matrix):
        total += block.T @ block
    return total
