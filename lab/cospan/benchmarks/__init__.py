"""Benchmarks: each module is one `cospan bench` command and measures ratios to a reference in the same run.

Nothing here is needed to run a fleet; errors of the method are in `cospan.experiments`. Begin with `rounds`.
"""
