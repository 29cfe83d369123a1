"""What the commands for studies and benchmarks do: compare, rank, reproduce, bench.

The work itself is in `cospan.experiments` and `cospan.benchmarks`. Begin with `compare`.
"""
