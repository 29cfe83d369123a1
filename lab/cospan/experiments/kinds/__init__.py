"""The kinds of experiment: each module plays, judges and draws one; the constants are in `specs/`.

What they have in common is one package up. Begin with `sweep`.
"""
