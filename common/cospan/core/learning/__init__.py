"""What an agent computes in a round: TD errors, head, gain estimate and subspace gradient.

Each module has one step of the method; those named `group_…` do the same for n agents at once, with a leading axis.
What happens to the gradients afterwards is in `cospan.core.aggregation`. Begin with `learner`.
"""
