"""Value functions for people: the coordinates of an observation, where a site has been, and pictures over both.

Begin with `plot`, the command.
"""
