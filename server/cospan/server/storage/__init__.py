"""A run on disk: one SQLite file, written round by round and read by any number of processes.

`cospan.server.machine` decides what is stored. Begin with `schema`, then `writer`.
"""
