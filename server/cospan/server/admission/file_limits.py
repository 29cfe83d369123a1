"""Open files: how many this process may have, and how its listeners share them."""

import logging
import resource
from dataclasses import dataclass

from cospan.server.admission.peer_limits import Kind, most_connections, quota_of_all

log = logging.getLogger(__name__)

_OTHER_FILES = 128
"""For the store, the log, libraries, and what a workload has open."""
_DASHBOARD_CONNECTIONS = 128
"""32 browsers with a stream each, and the pages that they load meanwhile."""
_SMALL_CONNECTIONS = 32
"""Of a listener that answers each connection once and closes it: metrics, a report."""
_FEWEST_DASHBOARD, _FEWEST_SMALL = 4, 2


@dataclass(frozen=True, slots=True)
class Shares:
    """How many connections each listener of a process may have open at once.

    Attributes:
        grpc: that of agents and of those who look at the run.
        dashboard: that of browsers.
        small: that of `/metrics` and `/healthz`, or of a report.
    """

    grpc: int
    dashboard: int
    small: int


def shares(files: int | None, agents: int) -> Shares:
    """How the listeners of one process share its descriptors; their sum leaves 128 for other files.

    The listeners beside gRPC have theirs set aside whether they are there or not, a sixth and a twelfth at most: so
    no order of opening changes what each of them may have.

    Args:
        files: how many the process may have open; None for no limit. Below 135 the sum is larger than it should
            be: each listener keeps the fewest connections that it can work with.
        agents: how many the run has in its specification.
    """
    wanted = most_connections(agents)
    if files is None:
        return Shares(wanted, _DASHBOARD_CONNECTIONS, _SMALL_CONNECTIONS)
    left = files - _OTHER_FILES
    dashboard = min(_DASHBOARD_CONNECTIONS, max(_FEWEST_DASHBOARD, left // 6))
    small = min(_SMALL_CONNECTIONS, max(_FEWEST_SMALL, left // 12))
    return Shares(max(1, min(wanted, left - dashboard - small)), dashboard, small)


def connections_allowed(agents: int) -> int:
    """How many gRPC connections the coordinator of a run of so many agents takes.

    With no descriptor left gRPC accepts nobody: newcomers wait in the dark until their own deadlines, and no file
    can be opened. Below that, whoever comes too many is closed at once.
    """
    soft = _soft_limit()
    allowed = shares(soft, agents)
    needed = quota_of_all(Kind.STREAM, agents).at_once
    if soft is not None and allowed.grpc < needed:
        log.warning(
            "this process may have %d files open; for the %d streams of %d agents it should be %d: see ulimit -n",
            soft,
            needed,
            agents,
            needed + _OTHER_FILES + _DASHBOARD_CONNECTIONS + _SMALL_CONNECTIONS,
        )
    return allowed.grpc


def dashboard_connections() -> int:
    """How many connections of browsers this process takes."""
    return shares(_soft_limit(), 1).dashboard


def small_connections() -> int:
    """How many connections a listener of this process takes that answers each of them once."""
    return shares(_soft_limit(), 1).small


def _soft_limit() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
