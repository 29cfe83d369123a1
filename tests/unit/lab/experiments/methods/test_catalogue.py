"""The catalogue: the methods and fleets that their constants stand for."""

import numpy as np

from cospan.core.linalg.subspace import random_basis
from cospan.experiments.methods.catalogue import Contender, Stage

D, R, L, AGENTS = 6, 2, 5, 3


def test_lists_of_constants_are_variants_side_by_side() -> None:
    entry = Contender("x", "joint", "paper", {"basis_step": [0.1, 0.2], "head_step": [1.0, 2.0, 3.0]})
    methods = entry.methods(7)
    assert len(entry.fleets(Stage(AGENTS, random_basis(D, R, np.random.default_rng(0)), 7))) == 6
    assert {(m.basis_step, m.head_step) for m in methods} == {(b, h) for b in (0.1, 0.2) for h in (1.0, 2.0, 3.0)}
    assert all(m.steps_per_round == 7 for m in methods)
