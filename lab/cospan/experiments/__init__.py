"""Studies: the method beside its alternatives over the same data, and the experiments of docs/experiments.

Nothing here is needed to run a fleet; timing is in `cospan.benchmarks`. Begin with `runner`.
"""
