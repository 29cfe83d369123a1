"""The `cospan` command.

`interface` has the signatures of all commands, `commands` and `lab` what they do, `settings` how options are
resolved. What a run computes is in the other packages. Begin with `main`.
"""
