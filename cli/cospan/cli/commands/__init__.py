"""Implementation of the commands that run, watch and inspect a fleet, one module each.

Their options are in `cospan.cli.interface`; studies and benchmarks are in `cospan.cli.lab`. Begin with `run`.
"""
