"""The models behind the built-in workloads: microgrids, acrobots, finite Markov chains.

They know nothing of features or agents; those are one package up. Begin with `microgrids`.
"""
