"""Listening sockets other than gRPC's: addresses, connection limits, and a small HTTP server.

What is served over them is in `cospan.server.telemetry` and `cospan.dashboard`. Begin with `acceptor`.
"""
