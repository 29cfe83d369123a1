"""What the coordinator computes from the gradients of a round: their aggregate and the next basis.

Robust aggregates, the fallback after a numerical failure, partial sums for relays and the warm start are here;
whose gradients count in a round is decided in `cospan.server.machine`. Begin with `basis_update`.
"""
