"""Linear algebra for tall matrices: orthonormalisation, subspace distances, batches, gradient matrices.

Nothing here knows of rewards, agents or rounds. Begin with `subspace`.
"""
