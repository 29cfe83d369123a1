"""Programs that make the reference solutions shipped as package data.

They are run by hand when a workload changes, never in a run. Begin with `solutions`.
"""
