"""The methods that experiments compare, and the variants of fleets and agents that they are tried on.

`catalogue` has them by name, with their constants; begin there.
"""
