"""A Ray cluster of three nodes on this machine: a head without CPUs for agents, and two others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.update(RAY_worker_niceness="0")  # at Ray's own 15, other programs leave agents next to nothing

CPUS = 4
"""Of each of the two nodes."""


class Cluster:
    """The nodes, and the means to kill one."""

    def __init__(self, nodes: Any) -> None:
        self._nodes = nodes
        self.workers = [nodes.add_node(num_cpus=CPUS) for _ in range(2)]

    @property
    def address(self) -> str:
        return str(self._nodes.address)

    def kill_node(self) -> None:
        """Kills the processes of the second node, as a loss of power does."""
        self._nodes.remove_node(self.workers.pop(), allow_graceful=False)

    def add_node(self) -> None:
        self.workers.append(self._nodes.add_node(num_cpus=CPUS))


@contextmanager
def running() -> Iterator[Cluster]:
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield Cluster(nodes)
    finally:
        nodes.shutdown()
