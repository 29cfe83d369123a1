"""The benchmark of rounds: which cases its sweep has."""

from cospan.benchmarks import rounds
from cospan.benchmarks.tools.processes import Case

# Turns and reports ----------------------------------------------------------------------------------------------


def test_the_sweep_leaves_out_what_no_memory_holds() -> None:
    cases = rounds.sweep()
    assert Case(1024, 1024, 16) in cases
    assert Case(1024, 65_536, 32) not in cases
    assert {(case.feature_dim, case.rank) for case in cases} == set(rounds.SWEEP_SHAPES)
