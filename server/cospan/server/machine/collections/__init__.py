"""Immutable collections that are cheap to update and to compare, for the machine's state.

They know agents only as strings in tuples that come and go together. Begin with `persistent_map`.
"""
