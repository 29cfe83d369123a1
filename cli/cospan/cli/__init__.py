"""The `cospan` command: starts fleets, coordinators and agents, and says what they do."""
