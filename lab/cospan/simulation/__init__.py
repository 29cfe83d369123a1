"""A fleet in this process: a whole run without a network, for notebooks, programs and `cospan run --in-process`.

It runs the coordinator's machine and the learners in turn; comparisons of methods are in `cospan.experiments`.
Begin with `fleet`. Public names are imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cospan.simulation.fleet import Fleet as Fleet
    from cospan.simulation.fleet_result import FleetResult as FleetResult
    from cospan.simulation.improvement import Improvement as Improvement
    from cospan.simulation.improvement import ImprovementSettings as ImprovementSettings
    from cospan.simulation.improvement_result import ImprovementResult as ImprovementResult

_HOMES = {
    "Fleet": "cospan.simulation.fleet",
    "FleetResult": "cospan.simulation.fleet_result",
    "Improvement": "cospan.simulation.improvement",
    "ImprovementResult": "cospan.simulation.improvement_result",
    "ImprovementSettings": "cospan.simulation.improvement",
}

__all__ = ["Fleet", "FleetResult", "Improvement", "ImprovementResult", "ImprovementSettings"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
