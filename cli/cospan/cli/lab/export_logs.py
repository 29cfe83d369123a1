"""`cospan export-logs`: writes the chains of a workload as logs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cospan.cli.settings.layers import load_settings
from cospan.client.environment.workload_loader import load_workload
from cospan.client.learning.default_run import DEFAULT_AGENTS, DEFAULT_ROUNDS
from cospan.client.logs.export import MAPPING, export_logs
from cospan.core.method import Method
from cospan.core.run_fields import RunFields
from cospan.wire.console import say
from cospan.wire.errors import InvalidValueError


def write_logs(workload: str, output: Path, flags: Mapping[str, Any], config: Path | None, *, form: str) -> int:
    """Writes the chains of a workload as logs; the exit code.

    Raises:
        CospanError: a setting is not allowed, the folder is not empty, or the workload fails.
    """
    settings, made = load_settings(flags, config), load_workload(workload)
    of_run = settings.of(RunFields)
    agents = of_run.get("agents", made.max_agents or DEFAULT_AGENTS)
    if made.max_agents is not None and agents > made.max_agents:
        raise InvalidValueError(f"agents is {agents}; workload {workload!r} has {made.max_agents} sites")
    length = settings.of(Method).get("steps_per_round", made.steps_per_round)
    steps = of_run.get("rounds", DEFAULT_ROUNDS) * length
    if not steps:
        raise InvalidValueError("rounds is 0; a log has an end, so give the number of rounds to write")
    export_logs(made, workload, output, agents=agents, steps=steps, seed=of_run.get("seed", 0), form=form)
    say(f"wrote {agents} logs of {steps:,} steps to {output}; learn from them with:", error=False)
    say(f"cospan run --mapping {output / MAPPING}", error=False)
    return 0
