"""The loop that runs the machine: it executes commands, keeps the clock, and feeds results back as events.

It decides nothing about a run; that is `cospan.server.machine`. Begin with `engine`.
"""
