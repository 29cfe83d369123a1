"""The coordinator: a pure state machine, the loop that runs it, and the gRPC service around both.

`machine` decides, `runtime` executes, `rpc` serves agents, `admission` protects `rpc`, `storage` stores the run and
`telemetry` reports it. `cospan.client` is the agent's side. Begin with `machine`. Public names are imported on
first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cospan.server.coordinator import Coordinator as Coordinator

_HOMES = {"Coordinator": "cospan.server.coordinator"}

__all__ = ["Coordinator"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
