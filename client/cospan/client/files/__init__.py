"""An agent's files: its state during a run, and its result at the end.

Atomic writes and bounded reads are in `cospan.wire.files`. Begin with `state_file`.
"""
