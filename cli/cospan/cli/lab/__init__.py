"""Implementation of compare, rank, reproduce and bench.

The work itself is in `cospan.experiments` and `cospan.benchmarks`. Begin with `compare`.
"""
