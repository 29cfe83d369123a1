"""What an agent computes in a round: TD errors, head, gain estimate and subspace gradient.

Each module has one step of the method, for one agent and for n at once: arrays have leading axes *n, or none.
What happens to the gradients afterwards is in `cospan.core.aggregation`. Begin with `learner`.
"""
