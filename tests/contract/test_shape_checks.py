"""What `tests/shape_checks.py` finds: wrong types and shapes at the first call, and at later ones."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from beartype.roar import BeartypeException
from jaxtyping import Float, TypeCheckError
from shape_checks import begin_test, checked

from cospan.core.linalg.subspace import tangent_projection

WRONG = (BeartypeException, TypeCheckError)
Vector = Float[np.ndarray, " n"]
Matrix = Float[np.ndarray, "n m"]


def product(matrix: Matrix, vector: Float[np.ndarray, " m"], scale: float = 1.0) -> Vector:
    return scale * matrix @ vector


def test_functions_of_the_packages_are_checked() -> None:
    assert tangent_projection(np.eye(4, 2), np.ones((4, 2))).shape == (4, 2)
    with pytest.raises(WRONG):
        tangent_projection(np.eye(4, 2), np.ones((4, 2), dtype=np.complex128))


@pytest.mark.parametrize("calls_before", [0, 1, 3])
@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        ((np.ones((2, 3)), np.ones(4)), {}),
        ((np.ones((2, 3)), np.ones(3, dtype=int)), {}),
        ((np.ones((2, 3)), np.ones((3, 1))), {}),
        ((np.ones((2, 3)), [1.0, 1.0, 1.0]), {}),
        ((np.ones((2, 3)), np.ones(3), "1"), {}),
        ((np.ones((2, 3)), np.ones(3)), {"scale": None}),
    ],
)
def test_a_wrong_argument_is_found(calls_before: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    function = checked(product)
    for _ in range(calls_before):
        assert function(np.ones((2, 3)), np.ones(3), 2).tolist() == [6.0, 6.0]
    with pytest.raises(WRONG):
        function(*arguments, **keywords)


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones((2, 1)), np.ones(2, dtype=int), None])
def test_a_wrong_result_is_found_where_a_right_one_came_before(wrong: Any) -> None:
    results = [np.ones(2), np.ones(2), wrong]

    def taken(matrix: Matrix) -> Vector:
        del matrix
        return results.pop(0)

    function = checked(taken)
    for _ in range(2):
        assert function(np.ones((2, 3))).shape == (2,)
    with pytest.raises(WRONG):
        function(np.ones((2, 3)))


@pytest.mark.parametrize("calls_before", [100, 255, 1000])
def test_what_is_wrong_for_some_calls_is_found_after_many_that_were_right(calls_before: int) -> None:
    function = checked(product)
    for _ in range(calls_before):
        function(np.ones((2, 3)), np.ones(3))
    found = 0
    for _ in range(17):
        try:
            function(np.ones((2, 3)), np.ones((3, 1)))
        except WRONG:
            found += 1
    assert found


def test_in_each_test_the_first_calls_are_all_checked() -> None:
    function = checked(product)
    for _ in range(1000):
        function(np.ones((2, 3)), np.ones(3))
    begin_test()
    for calls_before in (0, 255):
        for _ in range(calls_before - 1):
            function(np.ones((2, 3)), np.ones(3))
        with pytest.raises(WRONG):
            function(np.ones((2, 3)), np.ones((3, 1)))


@pytest.mark.parametrize("wrong", [False, True])
def test_any_number_of_arguments_is_checked_with_a_result_of_another_shape(wrong: bool) -> None:
    results = [np.ones(2), np.ones(3), np.ones((3, 1)) if wrong else np.ones(4)]

    def taken(*sizes: int, **names: float) -> Float[np.ndarray, " k"]:
        del sizes, names
        return results.pop(0)

    function = checked(taken)
    for _ in range(2):
        function(5, 6, first=1.0, second=2.0)
    if wrong:
        with pytest.raises(WRONG):
            function(5, 6, first=1.0, second=2.0)
    else:
        assert function(5, 6, first=1.0, second=2.0).shape == (4,)


def test_a_wrong_item_is_found_in_every_place() -> None:
    """A checker looks at one random item, so a list of several kinds is never taken for one that was checked."""

    def first(vectors: Sequence[Vector]) -> Vector:
        return vectors[0]

    def split(vector: Vector) -> tuple[Vector, float]:
        return vector, "x" if vector[0] > 1.0 else 0.0  # type: ignore[return-value]

    def often() -> None:
        for _ in range(200):
            function([np.ones(2), np.ones(3)])

    function = checked(first)
    assert function([np.ones(2), np.ones(2)]).shape == (2,)
    with pytest.raises(WRONG):
        often()
    pair = checked(split)
    assert pair(np.ones(2))[1] == 0.0
    with pytest.raises(WRONG):
        pair(2.0 * np.ones(2))


def test_dataclasses_methods_and_functions_that_are_resumed_are_checked() -> None:
    @checked
    @dataclass(frozen=True)
    class Pair:
        left: Vector
        right: Vector

        @classmethod
        @checked
        def of(cls, both: Matrix) -> "Pair":
            return cls(both[0], both[1])

    assert Pair.of(np.ones((2, 3))).right.shape == (3,)
    for _ in range(2):
        assert Pair(np.ones(2), np.ones(2)).left.shape == (2,)
        with pytest.raises(WRONG):
            Pair(np.ones(2), np.ones(3))

    @checked
    def each(matrix: Matrix) -> Iterator[Vector]:
        yield from matrix.T

    assert len(list(each(np.ones((2, 3))))) == 3
    with pytest.raises(WRONG):
        list(each(np.ones(3)))


def test_functions_without_shapes_are_checked_too() -> None:
    @checked
    def called(times: int, function: Callable[[], None] | None = None) -> str:
        del function
        return "x" * times

    assert (called(2), called(times=3)) == ("xx", "xxx")
    for wrong in ("2", 2.0, None):
        with pytest.raises(WRONG):
            called(wrong)  # type: ignore[arg-type]
