"""Differential privacy of agents: what is sent of an agent shows little of its data, whatever else is known.

An agent's vector of a round is clipped (`clipping`), and every agent adds a share of noise (`mechanism`, drawn by
`discrete_gaussian` from `word_source`) before the vectors are summed. `repair` makes of a noisy sum what a step of
the basis can use. What a number of rounds costs: `cospan.wire.privacy_budget`. Begin with `mechanism`.
"""
