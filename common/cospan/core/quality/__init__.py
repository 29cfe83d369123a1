"""How good value functions are where nothing is known to be true: errors on held-out data, what decisions need of
them, and what the features lack.
"""
