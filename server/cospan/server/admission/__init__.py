"""Admission control: authentication, limits per peer, rate limits and the budget of open files.

Limits on sockets that are not gRPC's are in `cospan.server.net`. A new admission rule goes into `interceptor`,
where reading begins.
"""
