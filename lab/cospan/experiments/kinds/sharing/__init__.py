"""Kinds of experiment that ask, site by site, whether sharing pays: the methods against the best one alone.

Begin with `fleet`; `against_alone` is the comparison.
"""
