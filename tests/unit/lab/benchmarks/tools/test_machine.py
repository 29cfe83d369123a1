"""The description of the machine that stands beside every measurement."""

from cospan.benchmarks.tools.machine import describe


def test_the_machine_is_described() -> None:
    machine = describe()
    assert {"cpu", "cores", "python", "numpy", "blas", "grpcio"} <= machine.keys()
    assert all(machine.values())
