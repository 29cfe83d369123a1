"""What browsers are sent: a heat map, and changed rows alone."""

import numpy as np

from cospan.dashboard.payloads import changed_rows, heat_map


def test_a_large_basis_is_shown_by_its_largest_entries() -> None:
    basis = np.zeros((1000, 70))
    basis[999, 69], basis[0, 0] = -0.5, 0.25
    shown = heat_map(basis)
    cells = np.array(shown["cells"])
    assert cells.shape[0] <= 160
    assert cells.shape[1] <= 64
    assert (cells[0, 0], cells[-1, -1]) == (0.25, -0.5)
    assert np.count_nonzero(cells) == 2


def test_only_rows_that_have_changed_are_sent() -> None:
    assert changed_rows([["a", 1], ["b", 2]], {"a": ["a", 1], "b": ["b", 1]}) == [["b", 2]]
