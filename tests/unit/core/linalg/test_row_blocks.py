"""Large matrices are taken in two halves at the same time, at a cut that follows from the shape alone."""

import threading

import numpy as np
import pytest
from values import read_only

from cospan.core.linalg.row_blocks import copied_blocks, gram_matrix, in_halves

LARGE = [(131_072, 8), (32_768, 32), (80_001, 17), (4096, 256)]
SMALL = [(131_071, 8), (32_767, 32), (20, 3)]
DEADLINE_SECONDS = 30.0


@pytest.mark.parametrize("shape", LARGE)
def test_the_halves_of_a_large_matrix_are_done_at_the_same_time_and_come_in_order(shape: tuple[int, int]) -> None:
    """Each waits for the other: one after the other they would never end."""
    meeting = threading.Barrier(2)

    def work(rows: slice) -> tuple[int, int]:
        meeting.wait(DEADLINE_SECONDS)
        return rows.start, rows.stop

    (start, cut), (second, stop) = in_halves(np.empty(shape), work)
    assert (start, stop) == (0, shape[0])
    assert cut == second
    assert abs(2 * cut - shape[0]) < 0.3 * shape[0], "they are about equal"


@pytest.mark.parametrize("shape", SMALL)
def test_a_smaller_one_is_done_at_once_where_it_is_asked_for(shape: tuple[int, int]) -> None:
    done = in_halves(np.empty(shape), lambda rows: (rows, threading.current_thread()))
    assert done == [(slice(0, shape[0]), threading.current_thread())]


@pytest.mark.parametrize("fails_at_the_top", [True, False])
def test_a_failure_in_either_half_is_told(fails_at_the_top: bool) -> None:
    def work(rows: slice) -> None:
        if (rows.start == 0) == fails_at_the_top:
            raise ValueError("as arranged")

    with pytest.raises(ValueError, match="as arranged"):
        in_halves(np.empty((131_072, 8)), work)


@pytest.mark.parametrize("shape", LARGE + SMALL)
def test_blocks_are_the_rows_in_order(shape: tuple[int, int]) -> None:
    matrix = np.arange(shape[0] * shape[1], dtype=np.float64).reshape(shape)
    rows = slice(5, shape[0] - 3)
    taken = [(block, copied.copy()) for block, copied in copied_blocks(read_only(matrix), rows)]
    np.testing.assert_array_equal(np.concatenate([copied for _, copied in taken]), matrix[rows])
    assert [block.stop for block, _ in taken] == [*(block.start for block, _ in taken[1:]), rows.stop]


@pytest.mark.parametrize("shape", LARGE + SMALL)
def test_the_gram_matrix_is_the_same_to_the_bit_each_time(shape: tuple[int, int]) -> None:
    matrix = read_only(np.random.default_rng(1).standard_normal(shape))
    gram = gram_matrix(matrix)
    np.testing.assert_allclose(gram, matrix.T @ matrix, rtol=1e-12, atol=1e-9)
    assert all(gram_matrix(matrix).tobytes() == gram.tobytes() for _ in range(2))


@pytest.mark.parametrize("row", [0, 131_071])
def test_what_overflows_in_either_half_is_infinite_without_a_warning(row: int) -> None:
    matrix = np.ones((131_072, 8))
    matrix[row, 3] = 1e200
    assert gram_matrix(read_only(matrix))[3, 3] == np.inf
