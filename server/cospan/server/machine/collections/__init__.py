"""Immutable collections that are cheap to update and to compare, for the machine's state.

They know agents only as names in blocks, mostly added and removed as a whole. Begin with `persistent_map`.
"""
