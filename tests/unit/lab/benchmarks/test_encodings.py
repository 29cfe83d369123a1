"""The benchmark of encodings, at tiny size, and the size of an upload."""

import numpy as np
import pytest
from unit.lab.benchmarks.test_orthonormalise import checked, quiet

from cospan.benchmarks import encodings
from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import FactoredMatrix
from cospan.wire.codec.messages import encode_agent_message
from cospan.wire.messages import GradientUpload


def test_encodings() -> None:
    report = encodings.benchmark([(20, 3)], [1, 10], 0.0, quiet)
    checked(report)
    sizes = {(row["agents"], row["encoding"], row["dtype"]): row["bytes"] for row in report.rows}
    assert len(sizes) == 8
    payload = {"dense": 20 * 3 * 8, "factored": (20 + 3) * 8}
    for encoding, numbers in payload.items():
        size = sizes[1, encoding, "float64"]
        assert isinstance(size, int)
        assert numbers < size <= numbers + 64, "an upload costs little beyond its numbers"
        assert sizes[1, encoding, "float32"] == pytest.approx(numbers / 2, abs=64)
    assert sizes[10, "factored", "float64"] > 3 * payload["factored"], "a group has as many factors as columns"


@pytest.mark.parametrize(("d", "r"), [(1, 1), (20, 3), (1024, 16), (65_536, 32)])
def test_a_factored_upload_is_its_numbers_and_at_most_64_bytes(d: int, r: int) -> None:
    """Of one agent, in float64, with the largest number of a round that a billion rounds need."""
    gradient = FactoredMatrix(np.ones((d, 1)), np.ones((r, 1)))
    message = encode_agent_message(GradientUpload(1_000_000_000, Contribution(gradient, 1.0)))
    size = len(message.SerializeToString())
    assert 8 * (d + r) < size <= 8 * (d + r) + 64
