"""`cospan stop`: ends a run in order, from outside."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cospan.cli.processes.admin_client import stop_run
from cospan.cli.settings.layers import load_settings


def stop_run_there(flags: Mapping[str, Any], config: Path | None, *, cause: str) -> int:
    """Asks a coordinator to end its run; the exit code.

    Raises:
        CospanError: the coordinator does not answer, or refuses.
    """
    settings = load_settings(flags, config)
    stamp = asyncio.run(stop_run(settings.coordinator, cause, settings.tls))
    print(f"run {stamp.run_id} is over after {stamp.round} rounds")
    return 0
