"""The run folder: its layout, its result document, its progress log, and what is needed to resume a run.

The run's database is `cospan.server.storage`. Begin with `layout`.
"""
