"""What the commands do that run, watch and inspect a fleet: one module a command.

Their options are in `cospan.cli.interface`; studies and benchmarks are in `cospan.cli.lab`. Begin with `run`.
"""
