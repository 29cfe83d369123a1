"""`cospan run --engine`: agent processes on the nodes of a cluster, started and heard of by one command.

`choice` is which engine, `ray_nodes` places them with Ray, `remote_child` is one of them as `LocalFleet` sees it,
and `agent_host` is what runs on a node. Only `ray_nodes` imports Ray, and only when it is asked for.
"""
