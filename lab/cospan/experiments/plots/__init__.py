"""Figures and tables of experiments.

They draw what they are given and compute no statistics; those are in `cospan.core.statistics`. Begin with `axes`.
"""
