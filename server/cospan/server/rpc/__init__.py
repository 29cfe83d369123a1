"""The gRPC server: methods, open streams and their writers.

`cospan.server.admission` limits the calls; `cospan.server.machine` decides what a message changes.
Begin with `service`.
"""
