"""A relay: a coordinator to its agents, and a group of agents to its own coordinator.

It reuses the server's machine downstream and the client's session upstream. Begin with `machine`, then `engine`.
"""
