"""The kinds of experiment: each module makes the runs of one, judges and draws them; the constants are in `specs/`.

What they have in common is one package up. Begin with `sweep`.
"""
