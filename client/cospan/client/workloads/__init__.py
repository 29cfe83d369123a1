"""Built-in workloads: synthetic chains, access-control queues, microgrids, acrobots.

Their models are in `models`, the programs of their reference solutions in `references`; the interface is
`cospan.client.workload`. Begin with `synthetic`.
"""

from collections.abc import Mapping
from types import MappingProxyType

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "synthetic": "cospan.client.workloads.synthetic:workload",
        "synthetic-common-reward": "cospan.client.workloads.synthetic:common_reward_workload",
        "queues": "cospan.client.workloads.queues:workload",
        "microgrids": "cospan.client.workloads.microgrids:workload",
        "acrobot": "cospan.client.workloads.acrobot:workload",
    }
)
"""Short name → `module:attribute` of the `cospan.client.workload.Workload`.
Nothing is imported until it is asked for."""
