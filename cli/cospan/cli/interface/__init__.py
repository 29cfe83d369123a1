"""Signatures, options and completion of the commands; it imports what they do only when they run.

Values and defaults are resolved in `cospan.cli.settings`. Begin with `commands`.
"""
