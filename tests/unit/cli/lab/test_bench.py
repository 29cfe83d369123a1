"""The shapes that `cospan bench` is given."""

import pytest

from cospan.cli.lab.bench import shapes_of
from cospan.wire.errors import InvalidValueError


def test_shapes() -> None:
    assert shapes_of(["65536x32", "4x4"]) == ((65_536, 32), (4, 4))


@pytest.mark.parametrize("text", ["", "x", "3", "3x", "3x4", "0x0", "4x-1", "4×2", "4x2x1", "٤x٢"])
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(InvalidValueError, match="--shape"):
        shapes_of([text])
