"""The mathematics of the method, as functions of arrays: no network, no files, no event loop.

`learning` is what one agent computes in a round, `aggregation` what the coordinator makes of the gradients,
`linalg` the matrix operations below both; running environments is in `cospan.client`. Begin with
`cospan.core.learning.learner`, whose `learn_round` is Algorithm 1 for one agent.

Source of the method: Wang, Yang and Su, "Personalized Multi-Agent Average Reward TD-Learning via Joint Linear
Approximation", arXiv:2603.02426 (2026). Equation numbers in this package are that paper's.
"""
