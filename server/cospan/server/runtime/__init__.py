"""The loop that runs the machine: it executes commands, keeps the clock, and returns results as events.

It decides nothing about a run; `cospan.server.machine` does. Begin with `engine`.
"""
