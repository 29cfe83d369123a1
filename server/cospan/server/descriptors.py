"""Open files: of those that this process may have, as many connections as leave room for the rest."""

import logging
import resource

from cospan.server.quotas import Kind, most_connections, quota_of_all

log = logging.getLogger(__name__)

_OTHER_FILES = 128
"""For the store, the log, libraries, and what a workload has open."""


def connections_allowed(agents: int) -> int:
    """How many connections the coordinator of a run of so many agents takes.

    With no descriptor left gRPC accepts nobody: newcomers wait in the dark until their own deadlines, and no file
    can be opened. Below that, whoever comes too many is closed at once.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most_connections(agents)
    if soft == resource.RLIM_INFINITY:
        return wanted
    allowed = max(1, min(wanted, soft - _OTHER_FILES))
    needed = quota_of_all(Kind.STREAM, agents).at_once
    if allowed < needed:
        log.warning(
            "this process may have %d files open; for the %d streams of %d agents it should be %d: see ulimit -n",
            soft,
            needed,
            agents,
            needed + _OTHER_FILES,
        )
    return allowed
