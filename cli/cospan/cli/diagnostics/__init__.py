"""The checks of `cospan doctor`.

Begin with `findings`.
"""
