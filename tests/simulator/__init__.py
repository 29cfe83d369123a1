"""The coordinator and its agents in one process, under a virtual clock: every run follows from its seed.

`plan` draws a run and its faults, `world` plays it, `witness` says what must hold, `shrink` reduces a plan that
fails, and `mutants` shows that faults planted in the machines are found. docs/simulator.md says how to use it.
"""
