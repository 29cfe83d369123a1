"""A round whose arithmetic fails: who is left out."""

import dataclasses

import numpy as np
import pytest

from cospan.core.aggregation.basis_update import Contribution, next_basis
from cospan.core.aggregation.fallback import sound_move
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import PRESETS, Aggregation

D, R = 6, 3

RNG = np.random.default_rng(5)

BASIS = random_basis(D, R, RNG)

METHOD = PRESETS["paper"](5)

FINE = [Contribution(DenseMatrix(RNG.standard_normal((D, R)))) for _ in range(3)]

BROKEN = Contribution(DenseMatrix(np.full((D, R), np.nan)))


def test_without_trouble_nobody_is_left_out() -> None:
    sound = sound_move(BASIS, FINE, METHOD, 0)
    assert (sound.left_out, sound.problem) == ((), "")
    assert sound.move.basis.tobytes() == next_basis(BASIS, FINE, METHOD, 0).basis.tobytes()


def test_those_on_whom_the_arithmetic_fails_are_left_out() -> None:
    sound = sound_move(BASIS, [FINE[0], BROKEN, FINE[1], BROKEN], METHOD, 0)
    assert sound.left_out == (1, 3)
    assert "non-finite" in sound.problem
    assert sound.move.basis.tobytes() == next_basis(BASIS, FINE[:2], METHOD, 0).basis.tobytes()


def test_outliers_keep_their_places_when_somebody_is_left_out() -> None:
    far = Contribution(DenseMatrix(np.full((D, R), 1e6)))
    method = dataclasses.replace(METHOD, aggregation=Aggregation.GEOMETRIC_MEDIAN)
    sound = sound_move(BASIS, [BROKEN, *FINE, far], method, 0)
    assert sound.left_out == (0,)
    assert sound.move.outliers == (4,)


def test_where_it_fails_on_nobody_alone_the_basis_stays() -> None:
    """Two that are fine, and whose sum is not."""
    large = Contribution(DenseMatrix(np.eye(D, R) * 1e308))
    sound = sound_move(BASIS, [large, large], METHOD, 0)
    assert sound.left_out == (0, 1)
    assert sound.move.basis is BASIS
    assert sound.move.movement == 0.0


def test_where_it_fails_on_everybody_the_constants_are_to_blame() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        sound_move(BASIS, [BROKEN, BROKEN], METHOD, 0)
