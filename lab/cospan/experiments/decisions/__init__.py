"""What policies made from learnt values are worth: fleets of microgrids and queues that improve theirs.

Begin with `tasks`.
"""
