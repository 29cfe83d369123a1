"""The mathematics of better policies: how uncertain weights are, how sure a difference is, the best there can be.

Begin with `paired_bound`: what a gate asks.
"""
