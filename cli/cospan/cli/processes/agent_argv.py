"""Command lines of agent processes, and how many of them the limit of open files allows."""

from collections.abc import Sequence

from cospan.cli.run_folder.layout import RunFolder
from cospan.cli.settings.run_specification import RunPlan
from cospan.client.placement import Host
from cospan.server.admission.file_limits import connections_allowed
from cospan.wire.errors import InvalidValueError

_OWN_FILES = 32
"""Open files of `cospan run` itself, including those of a starting child; 22 were counted."""
_FILES_PER_CHILD = 3
"""The pipes to its standard streams."""


_PASSED_ON = ("checkpoint_seconds", "progress_timeout_seconds", "min_steps_per_round", "memory_gib")


def arguments_of(host: Host, plan: RunPlan, folder: RunFolder, address: str) -> list[str]:
    """The arguments of `cospan` for the process of a host."""
    settings = plan.settings
    if host.is_group:
        sites = ["--ids", f"{host.indices[0]}-{host.indices[-1]}"]
    else:
        sites = ["--id", host.name, "--index", str(host.indices[0])]
    baseline = () if settings.baseline is None else ("--baseline" if settings.baseline else "--no-baseline",)
    return [
        *("agent", plan.specification.workload, *sites, "--json", "--coordinator", address),
        *("--output", str(folder.agents if host.is_group else folder.agent(host.name))),
        *(word for name in _PASSED_ON for word in (f"--{name.replace('_', '-')}", str(getattr(settings, name)))),
        *baseline,
        # It stays on this machine; with secure sums nothing of a single agent is sent.
        *(() if host.is_group or plan.specification.secure_sums else ("--share-td-error",)),
    ]


def check_open_files(hosts: Sequence[Host], agents: int, most_files: int | None) -> None:
    """Checks that the processes of a run can be started and can connect to its coordinator.

    Args:
        hosts: of the run, one process each.
        agents: their number of agents.
        most_files: open files that a process may have; None for no limit.

    Raises:
        InvalidValueError: there are too many hosts.
    """
    if most_files is None:
        return
    by_pipes = (most_files - _OWN_FILES) // _FILES_PER_CHILD - 1  # one is the coordinator
    fit = max(0, min(by_pipes, connections_allowed(agents) - 1))  # one is this process, which watches
    if len(hosts) > fit:
        fewer = ", choose fewer agents, or let each process host several (--processes)" if fit else ""
        raise InvalidValueError(
            f"a process may have {most_files} files open here, enough for {fit} agent processes, and the run has "
            f"{len(hosts)}: raise the limit (ulimit -Hn){fewer}"
        )
