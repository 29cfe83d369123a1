"""The gRPC server: methods, open streams and their writers.

Who may call and how often is in `cospan.server.admission`; what a message changes is in `cospan.server.machine`.
Begin with `service`.
"""
