"""Settings: defaults, file, environment and flags, and the run specification that they give.

The options' names and help are in `cospan.cli.interface`. Begin with `layers`.
"""
