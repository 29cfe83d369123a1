"""Workloads and their environments: loading, endless rollouts of one site or many, action checks.

The interface that a user implements is `cospan.client.workload`; the built-in ones are in
`cospan.client.workloads`. Begin with `rollout`.
"""
