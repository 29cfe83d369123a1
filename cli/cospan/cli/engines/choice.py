"""Which engine starts the agent processes of `cospan run`."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from cospan.cli.settings.run_specification import RunPlan
from cospan.client.placement import Host
from cospan.wire.errors import InvalidValueError

if TYPE_CHECKING:
    from cospan.cli.processes.local_fleet import Nodes

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine, and where it is.

    Attributes:
        name: one of `ENGINES`.
        address: of its cluster; None for the one that this machine is a node of.
    """

    name: str = LOCAL
    address: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether this process starts the agents' processes itself."""
        return self.name == LOCAL

    def nodes(
        self, plan: RunPlan, hosts: Sequence[Host], note: Callable[[str], None]
    ) -> AbstractContextManager[Optional["Nodes"]]:
        """The places of the processes of a run, reserved and released; None for this machine.

        Args:
            plan: of the run.
            hosts: its processes.
            note: is told what is waited for.

        Raises:
            CospanError: the engine has no such places; as a sentence that says what to do.
        """
        if self.is_local:
            return contextlib.nullcontext()
        from cospan.cli.engines.ray_nodes import ray_nodes  # it imports what imports this

        workload, wait = plan.specification.workload, plan.settings.start_seconds
        return ray_nodes(self.address, hosts, workload, room_seconds=wait, note=note)


HERE = Engine()
"""No engine: this process starts the others."""


def engine_of(name: str | None, address: str | None, *, in_process: bool, resuming: bool) -> Engine | None:
    """The engine of the command line; None if none is named.

    Raises:
        InvalidValueError: there is no such engine, or an option contradicts it.
    """
    if name is None:
        if address is not None and not resuming:
            raise InvalidValueError(f"--address {address} is of a cluster; name its engine with --engine ray")
        return None if address is None else Engine(RAY, address)
    if name not in ENGINES:
        raise InvalidValueError(
            f"--engine is {name!r}; it must be {' or '.join(ENGINES)} (for Kubernetes, Swarm, Slurm, Compose and "
            "systemd see `cospan deploy`)"
        )
    if name == LOCAL and address is not None:
        raise InvalidValueError(f"--address {address} is of a cluster, and --engine local uses none; leave out one")
    if name == RAY and in_process:
        raise InvalidValueError(
            "--engine ray starts processes, and --in-process starts none; they are mutually exclusive"
        )
    return Engine(name, address)


def with_groups(flags: Mapping[str, Any], groups: int | None) -> Mapping[str, Any]:
    """The flags with `--groups`, by which every engine calls `--processes`.

    Raises:
        InvalidValueError: both are given.
    """
    if groups is None:
        return flags
    if "processes" in flags:
        raise InvalidValueError("--groups and --processes are the same; leave out one")
    return {**flags, "processes": groups}
