"""Learning from a site, round by round: one agent or a group, on a thread of its own.

The formulas are in `cospan.core.learning`, the environments in `cospan.client.environment`. Begin with
`site_learner`.
"""
