"""Results of a run's agents, from their own files or those of their groups."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from cospan.cli.run_folder.layout import RunFolder
from cospan.cli.run_folder.progress_log import RunMonitor
from cospan.cli.run_folder.run_result import AgentRow, agent_row
from cospan.client.agent import default_agent_id
from cospan.client.files.agent_result import AgentResult
from cospan.client.files.group_file import group_agents, names_in
from cospan.client.files.result_file import load_result
from cospan.client.placement import Host
from cospan.core.specification import SITE_PREFIX
from cospan.wire.console import say
from cospan.wire.errors import RunFileError


def agent_results(folder: RunFolder, hosts: Sequence[Host]) -> dict[str, AgentResult]:
    """Existing results of agents, by name; a group's come from its one file, which is faster to read."""
    found: dict[str, AgentResult] = {}
    for host in hosts:
        path = folder.agent(host.name)
        if path.exists():
            with _left_out():
                results = group_agents(path) if host.is_group else [load_result(path)]
                found |= {result.text("agent_id"): result for result in results}
        if host.is_group:  # an agent that failed has its own file
            found |= _files_of(folder, [name for name in host.agents if name not in found])
    return found


def saved_agents(folder: RunFolder) -> int:
    """How many agents have a result, of their own or in the file of their group."""
    names = {path.stem for path in folder.agents.glob(f"{SITE_PREFIX}*.npz")}
    for path in folder.agents.glob("group-*.npz"):
        with _left_out():
            names |= set(names_in(path))
    return len(names)


def _files_of(folder: RunFolder, agents: Sequence[str]) -> dict[str, AgentResult]:
    found = {}
    for name in agents:
        path = folder.agent(name)
        if path.exists():
            with _left_out():
                found[name] = load_result(path)
    return found


@contextlib.contextmanager
def _left_out() -> Iterator[None]:
    """Leaves out a file that cannot be read, and reports it."""
    try:
        yield
    except RunFileError as failure:
        say(f"cospan: {failure}; it is left out of the summary")


def row_of(index: int, results: Mapping[str, AgentResult], monitor: RunMonitor) -> AgentRow:
    """The numbers of an agent; only its name without a file."""
    name = default_agent_id(index)
    if name in results:
        return agent_row(results[name])
    progress = monitor.agents.get(name)
    return AgentRow(id=name, label=progress.label if progress else "")
