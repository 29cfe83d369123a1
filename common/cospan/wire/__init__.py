"""What agents, coordinators and tools share beside the mathematics: messages, errors, addresses, limits.

`codec` turns messages into protobuf, `security` reads certificates and identities, `files` reads and writes files
safely; sockets are opened in `cospan.server` and `cospan.client`. Begin with `messages`.
"""
