"""The transitions that posteriors keep: features of several agents, and sums over them.

Begin with `feature_rows`: features as they are, or by their numbers in a table; `visits` sums over them.
"""
