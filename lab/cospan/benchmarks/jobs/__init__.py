"""The job of `cospan bench peers` as other frameworks run it: Flower, Ray and MPI.

Each runs in an environment of its own. Begin with `gradient_exchange`.
"""
