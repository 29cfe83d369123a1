"""What a stream costs beyond those of the first case."""

import pytest

from cospan.benchmarks.cost_growth import Cost, per_stream
from cospan.benchmarks.tools.processes import Case


def test_what_a_stream_costs_beyond_the_first_case() -> None:
    """8 streams cost 4,000 µs, 108 cost 27,000 µs and 80 KiB more for each of the 100, 2 KiB of it payload."""
    few, many = Case(8, 64, 4), Case(108, 64, 4)
    least, most = Cost(4000.0, 1.0, 40.0, 9), Cost(27_000.0, 1.0, 40.0 + 8000 / 1024, 9)
    found = per_stream(many, most, few, least)
    assert (found["cpu_us_per_stream"], found["cpu_growth_per_stream"]) == (250.0, 0.5)
    assert found["memory_kib_per_stream"] == pytest.approx(78.0)
    first = per_stream(few, least, few, least)
    assert (first["cpu_growth_per_stream"], first["memory_kib_per_stream"]) == (1.0, None)
    assert set(per_stream(many, Cost(None, 1.0, None, 9), few, least).values()) == {None}
