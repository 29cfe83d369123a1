"""An agent's conversation with its coordinator: a pure state machine, its driver and the gRPC transport.

What an agent learns is in `cospan.client.learning`. Begin with `machine`, then `driver`.
"""
