"""`cospan run --engine ray`: one Ray actor for each agent process, spread over the nodes of a cluster.

The coordinator runs beside this process, on whose disk the run folder is; Ray starts and watches the actors alone.
Each actor holds one CPU of a placement group, which Ray moves to another node when one is lost.
"""

import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cospan.cli.engines.agent_host import AgentHost
from cospan.cli.engines.remote_child import HostAwayError, HostLostError, RemoteChild
from cospan.cli.processes.child_process import Listener
from cospan.cli.run_folder.layout import RUNS, RunFolder
from cospan.cli.run_folder.run_result import RunFailedError
from cospan.cli.settings.extras import require
from cospan.client.placement import Host
from cospan.wire.errors import InvalidValueError
from cospan.wire.text import MAX_RECORD, printable

log = logging.getLogger(__name__)

AUTO, LOCAL = "auto", "local"
"""Addresses that Ray knows: the cluster of this machine (or RAY_ADDRESS), and one that Ray starts for this run."""
ROOM_SECONDS = 30.0
"""How long the cluster may take to have a CPU for each process, unless --start-seconds is given."""
_CONNECT_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_CALLS = 4
"""Of an actor at the same time: one may wait for news, and the process is told to stop meanwhile."""
_NOT_SENT = (str(RUNS), ".git", ".venv*", "__pycache__")


@contextlib.contextmanager
def ray_nodes(
    address: str | None,
    hosts: Sequence[Host],
    workload: str,
    *,
    room_seconds: float | None,
    note: Callable[[str], None],
) -> Iterator["RayNodes"]:
    """A place in a Ray cluster for each process of a run, until the block ends.

    Args:
        address: HOST:PORT of the cluster, `auto` or `local`; None for `auto`.
        hosts: the processes.
        workload: the reference; if it names a module of the working folder, Ray copies the folder to the nodes.
        room_seconds: how long to wait for a CPU for each process; None for `ROOM_SECONDS`.
        note: is told what is waited for.

    Raises:
        InvalidValueError: Ray is not installed, or the address cannot be one of a cluster that this machine is in.
        RunFailedError: the cluster does not answer, or has too few CPUs.
    """
    require("--engine ray", ("ray",), "ray")
    where = address or os.environ.get("RAY_ADDRESS") or AUTO
    _check_address(where)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    _connect(where, workload)
    group = None
    nodes = None
    try:
        room = _Room(where, len(hosts), ROOM_SECONDS if room_seconds is None else room_seconds)
        group = room.reserve(note)
        nodes = RayNodes(group, hosts)
        yield nodes
    finally:
        if nodes is not None:
            nodes.close()
        with contextlib.suppress(Exception):  # what a cluster that is gone held is gone as well
            if group is not None:
                ray.util.remove_placement_group(group)
        ray.shutdown()


class RayNodes:
    """The places of the processes of a run; `cospan.cli.processes.local_fleet.Nodes` says what it promises."""

    def __init__(self, group: Any, hosts: Sequence[Host]) -> None:
        import ray

        self.host: str = ray.util.get_node_ip_address()
        self._group = group
        self._bundles = {host.name: number for number, host in enumerate(hosts)}
        self._handles: list[_Handle] = []

    def start(self, agents: Host, arguments: Sequence[str], folder: RunFolder, listener: Listener) -> RemoteChild:
        """Starts an agent process in its place; its files come back into the folder at its end.

        It writes no files before: what a node keeps is lost with the node, and the coordinator keeps every basis
        that no file includes, so a process that is started again learns what it lost.
        """
        handle = _Handle(self._group, self._bundles[agents.name])
        self._handles.append(handle)
        said = list(arguments)
        said[said.index("--checkpoint-seconds") + 1] = "0"
        return RemoteChild(agents.name, agents.agents, said, handle, folder.agents, listener)

    def close(self) -> None:
        """Ends every process that may still run."""
        for handle in self._handles:
            handle.discard()


class _Handle:
    """An actor that runs an `AgentHost`."""

    def __init__(self, group: Any, bundle: int) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        self._errors = ray.exceptions
        self._answered = False
        self._discarded = False
        options = ray.remote(AgentHost).options(
            num_cpus=1,
            max_concurrency=_CALLS,
            max_restarts=0,  # the fleet decides; what a process said must not be lost
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, bundle),
        )
        self._actor = options.remote()

    async def call(self, method: str, *arguments: object) -> Any:
        """The result of a method.

        Raises:
            HostLostError: the actor or its node is gone.
            HostAwayError: its node does not answer now.
        """
        try:
            result = await getattr(self._actor, method).remote(*arguments)
        except self._errors.ActorUnavailableError as failure:
            raise HostAwayError(_last_line(failure)) from failure
        except self._errors.RayError as failure:
            raise HostLostError(_last_line(failure), at_start=not self._answered and _is_own(failure)) from failure
        self._answered = True
        return result

    def discard(self) -> None:
        """Ends the actor."""
        if self._discarded:
            return
        self._discarded = True
        import ray

        with contextlib.suppress(Exception):  # the actor may be gone, and so may the cluster
            ray.kill(self._actor, no_restart=True)


class _Room:
    """One CPU for each process, spread over the nodes."""

    def __init__(self, address: str, processes: int, seconds: float) -> None:
        self._address, self._processes, self._seconds = address, processes, seconds

    def reserve(self, note: Callable[[str], None]) -> Any:
        """The placement group.

        Raises:
            RunFailedError: there is no room for it in time.
        """
        from ray.util.placement_group import placement_group, remove_placement_group

        group = placement_group([{"CPU": 1}] * self._processes, strategy="SPREAD")
        try:
            since = time.monotonic()
            told = False
            while not group.wait(_LOOK_SECONDS):
                if time.monotonic() - since >= self._seconds:
                    raise RunFailedError(self._sentence())
                if not told:
                    note(f"Ray: waiting {self._seconds:g} s for {self._processes} CPUs; {self._have()}")
                    told = True
        except BaseException:
            remove_placement_group(group)
            raise
        return group

    def _have(self) -> str:
        import ray

        free, of = (int(found.get("CPU", 0)) for found in (ray.available_resources(), ray.cluster_resources()))
        return f"{free} of the cluster's {of} are free"

    def _sentence(self) -> str:
        return (
            f"the Ray cluster at {self._address} has no room for {self._processes} agent processes, which need a "
            f"CPU each: after {self._seconds:g} s {self._have()}; start fewer processes (--groups), add nodes, "
            "or wait longer (--start-seconds)"
        )


def _connect(address: str, workload: str) -> None:
    """Joins the cluster.

    Raises:
        RunFailedError: it cannot be joined.
    """
    import ray

    _log_errors_of_nodes()
    folder = _own_folder(workload)
    sent = {} if folder is None else {"working_dir": str(folder), "excludes": list(_NOT_SENT)}
    try:
        ray.init(
            address=address,
            runtime_env=sent or None,
            logging_level=logging.ERROR,
            configure_logging=False,
            log_to_driver=False,
        )
    except Exception as failure:  # Ray's own errors, RuntimeError, ValueError, ConnectionError
        ray.shutdown()
        what = (
            "there is no Ray cluster on this machine; start one with `ray start --head`, or name one with --address"
            if address == AUTO and isinstance(failure, ConnectionError)
            else f"this process cannot join the Ray cluster at {address}: {_last_line(failure)}; run it on a node "
            "of the cluster, with the same versions of Python and Ray"
        )
        raise RunFailedError(what) from failure


def _log_errors_of_nodes() -> None:
    """Has the run's log take what Ray would print on standard output of its nodes' errors, whatever it is told."""
    from ray._private import worker

    def add(data: Mapping[str, Any], **_: object) -> None:
        for text in data.get("lines", ()):
            log.info("Ray: %s", printable(str(text), MAX_RECORD))

    if hasattr(worker, "print_to_stdstream"):  # otherwise another version prints as it likes
        worker.print_to_stdstream = add


def _check_address(address: str) -> None:
    """Checks that something answers, for which Ray would wait for long.

    Raises:
        InvalidValueError: it is no address of a cluster, or one of Ray's client server.
        RunFailedError: nothing listens there.
    """
    if address in (AUTO, LOCAL):
        return
    if "://" in address:
        raise InvalidValueError(
            f"--address is {address!r}, which is not a cluster that this machine is a node of; agents must reach "
            "the coordinator, so run the command on a node (as by `ray job submit`), with --address HOST:PORT"
        )
    found = re.fullmatch(r"\[?([^\[\]]+)\]?:([0-9]{1,5})", address)
    if found is None or not 0 < int(found[2]) < 65536:
        raise InvalidValueError(f"--address is {address!r}; it must be HOST:PORT of a Ray cluster, auto or local")
    try:
        socket.create_connection((found[1], int(found[2])), _CONNECT_SECONDS).close()
    except OSError as failure:
        raise RunFailedError(
            f"no Ray cluster answers at {address} ({failure.strerror or failure}); see `ray status`, and give the "
            "address that `ray start --head` has printed"
        ) from failure


def _own_folder(workload: str) -> Path | None:
    """The working folder if it has the module of the workload, else None: then the nodes have it installed."""
    module, colon, _ = workload.partition(":")
    top, here = module.partition(".")[0], Path.cwd()
    is_here = (here / f"{top}.py").is_file() or (here / top).is_dir()
    return here if colon and is_here else None


def _is_own(failure: Exception) -> bool:
    """Whether an actor failed by itself, as where Cospan is not installed, and would fail again."""
    return "Error" in str(failure) and "creation task" in str(failure)


def _last_line(failure: BaseException) -> str:
    """The last line of an error of Ray, whose texts hold tracebacks."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return lines[-1] if lines else type(failure).__name__
