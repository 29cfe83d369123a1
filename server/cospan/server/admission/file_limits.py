"""The budget of open files, and its division between the listeners of this process."""

import logging
import resource
from dataclasses import dataclass

from cospan.server.admission.peer_limits import Kind, limit_of_all, most_connections

log = logging.getLogger(__name__)

_OTHER_FILES = 128
"""Reserved for the store, the log, libraries, and files of the workload."""
_DASHBOARD_CONNECTIONS = 128
"""32 browsers with one event stream each, and the requests that load their pages."""
_SMALL_CONNECTIONS = 32
"""For a listener that closes each connection after one response: metrics, or a report."""
_FEWEST_DASHBOARD, _FEWEST_SMALL = 4, 2


@dataclass(frozen=True, slots=True)
class Shares:
    """Limits on the open connections of each listener; `small` is for metrics, or for a report."""

    grpc: int
    dashboard: int
    small: int


def shares(files: int | None, agents: int) -> Shares:
    """Divides the file descriptors of a process between its listeners, and reserves 128 for other files.

    The dashboard and the small listener have at most a sixth and a twelfth reserved, whether they run or not, so
    that the limits do not depend on the order of opening.

    Args:
        files: limit on open files; None for no limit. Below 135 the sum exceeds it, because each listener keeps the
            minimum that it needs.
        agents: in the run's specification.
    """
    wanted = most_connections(agents)
    if files is None:
        return Shares(wanted, _DASHBOARD_CONNECTIONS, _SMALL_CONNECTIONS)
    left = files - _OTHER_FILES
    dashboard = min(_DASHBOARD_CONNECTIONS, max(_FEWEST_DASHBOARD, left // 6))
    small = min(_SMALL_CONNECTIONS, max(_FEWEST_SMALL, left // 12))
    return Shares(max(1, min(wanted, left - dashboard - small)), dashboard, small)


def connections_allowed(agents: int) -> int:
    """Limit on the gRPC connections of a coordinator; warns if it is below the limit on streams.

    Without a free descriptor gRPC accepts no connection, clients wait for their own deadlines, and no file can be
    opened. Below that limit a surplus connection is closed at once.
    """
    soft = _soft_limit()
    allowed = shares(soft, agents)
    needed = limit_of_all(Kind.STREAM, agents).at_once
    if soft is not None and allowed.grpc < needed:
        log.warning(
            "this process may have %d files open; for the %d streams of %d agents it should be %d: see ulimit -n",
            *(soft, needed, agents, needed + _OTHER_FILES + _DASHBOARD_CONNECTIONS + _SMALL_CONNECTIONS),
        )
    return allowed.grpc


def dashboard_connections() -> int:
    """Limit on the connections of browsers."""
    return shares(_soft_limit(), 1).dashboard


def small_connections() -> int:
    """Limit on the connections of a listener that answers each of them once."""
    return shares(_soft_limit(), 1).small


def _soft_limit() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
