"""A relay: a coordinator to its agents, and a group of agents to its coordinator."""
