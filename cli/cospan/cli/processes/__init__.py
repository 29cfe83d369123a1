"""Processes: this one, the children of `cospan run`, and the services beside a coordinator.

What each process does is in its command. Begin with `local_fleet`.
"""
