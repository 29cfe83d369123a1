"""A run on disk: one SQLite file, written round by round and read by any number of tools.

What has to be stored is decided in `cospan.server.machine`. Begin with `schema`, then `writer`.
"""
