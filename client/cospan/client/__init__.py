"""The agent: workloads, which users provide; learning from them; and the session with a coordinator.

The formulas are in `cospan.core`, the coordinator in `cospan.server`. Begin with `agent`. Public names are imported
on first use: a workload needs no gRPC, and `import cospan.client` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cospan.client.agent import Agent as Agent
    from cospan.client.decisions.policy import GreedyPolicy as GreedyPolicy
    from cospan.client.environment.vector_env import vector_sites as vector_sites
    from cospan.client.environment.workload_loader import load_workload as load_workload
    from cospan.client.feeds.told import FeedSettings as FeedSettings
    from cospan.client.feeds.told import FeedStep as FeedStep
    from cospan.client.gradient_agent import GradientAgent as GradientAgent
    from cospan.client.gradient_agent import GradientSource as GradientSource
    from cospan.client.group import AgentGroup as AgentGroup
    from cospan.client.learning.run_config import specify as specify
    from cospan.client.session.learning_session import AgentEnd as AgentEnd
    from cospan.client.session.settings import ClientSettings as ClientSettings
    from cospan.client.shard import sites_of_shard as sites_of_shard
    from cospan.client.value_function import ValueFunction as ValueFunction
    from cospan.client.value_uncertainty import Interval as Interval
    from cospan.client.workload import Decisions as Decisions
    from cospan.client.workload import Site as Site
    from cospan.client.workload import SourceSite as SourceSite
    from cospan.client.workload import Workload as Workload
    from cospan.client.workload_check.check import check as check
    from cospan.client.workload_check.findings import CheckReport as CheckReport
    from cospan.client.workload_check.findings import Finding as Finding
    from cospan.client.workload_check.findings import Severity as Severity

_HOMES = {
    "Agent": "cospan.client.agent",
    "AgentEnd": "cospan.client.session.learning_session",
    "AgentGroup": "cospan.client.group",
    "CheckReport": "cospan.client.workload_check.findings",
    "ClientSettings": "cospan.client.session.settings",
    "Decisions": "cospan.client.workload",
    "FeedSettings": "cospan.client.feeds.told",
    "FeedStep": "cospan.client.feeds.told",
    "Finding": "cospan.client.workload_check.findings",
    "GradientAgent": "cospan.client.gradient_agent",
    "GradientSource": "cospan.client.gradient_agent",
    "GreedyPolicy": "cospan.client.decisions.policy",
    "Interval": "cospan.client.value_uncertainty",
    "Severity": "cospan.client.workload_check.findings",
    "Site": "cospan.client.workload",
    "SourceSite": "cospan.client.workload",
    "ValueFunction": "cospan.client.value_function",
    "Workload": "cospan.client.workload",
    "check": "cospan.client.workload_check.check",
    "load_workload": "cospan.client.environment.workload_loader",
    "sites_of_shard": "cospan.client.shard",
    "specify": "cospan.client.learning.run_config",
    "vector_sites": "cospan.client.environment.vector_env",
}

__all__ = [
    "Agent",
    "AgentEnd",
    "AgentGroup",
    "CheckReport",
    "ClientSettings",
    "Decisions",
    "FeedSettings",
    "FeedStep",
    "Finding",
    "GradientAgent",
    "GradientSource",
    "GreedyPolicy",
    "Interval",
    "Severity",
    "Site",
    "SourceSite",
    "ValueFunction",
    "Workload",
    "check",
    "load_workload",
    "sites_of_shard",
    "specify",
    "vector_sites",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
