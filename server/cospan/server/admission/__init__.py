"""Admission control: authentication, limits per peer, rate limits and the budget of open files.

A new rule has its number in `peer_limits` and its account in `interceptor`, where reading begins.
`cospan.server.rpc.service` asks `interceptor` for streams and joins; the interceptor itself checks every other
call. Limits on sockets that are not gRPC's are in `cospan.server.net`.
"""
