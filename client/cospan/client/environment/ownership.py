"""Calls of user code: its failures are turned into errors, and the code that makes a site closes it."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator

from cospan.client.workload import AnySite, Site, Sites
from cospan.wire.errors import WorkloadBehaviourError

log = logging.getLogger(__name__)


def close_site(site: AnySite) -> None:
    """Calls `env.close()`, since environments may hold a port, a licence or a file; a failure is only logged.

    A site without an environment holds nothing until its source is opened, and the source is closed by its owner.
    """
    if isinstance(site, Site):
        _close(site.env.close, site.label or "a site")


@contextlib.contextmanager
def user_code(what: str) -> Iterator[None]:
    """Turns an exception of user code into a WorkloadBehaviourError whose text is "`what`: kind: text".

    This includes other errors of Cospan: what user code raises is no answer of the coordinator. Only Ctrl-C and a
    WorkloadBehaviourError, as of `vector_sites`, which user code calls, pass as they are.
    """
    try:
        yield
    except (WorkloadBehaviourError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as failure:  # user code may also call sys.exit
        raise WorkloadBehaviourError(f"{what}: {type(failure).__name__}: {failure}") from failure


@contextlib.contextmanager
def closing_on_failure(site: AnySite) -> Iterator[None]:
    """Closes a site where the block fails."""
    try:
        yield
    except BaseException:
        close_site(site)
        raise


def close_sites(sites: Sites | Iterable[AnySite]) -> None:
    """Closes several sites; those that are stepped at once by the `close` of their chains, where there is one."""
    if not isinstance(sites, Sites):
        for site in sites:
            close_site(site)
        return
    close = getattr(sites.chains, "close", None)
    if callable(close):
        _close(close, f"{len(sites.labels)} sites")


def _close(close: Callable[[], object], what: str) -> None:
    try:
        close()
    except KeyboardInterrupt:
        raise
    except BaseException as failure:
        log.warning("the environment of %s cannot be closed: %s: %s", what, type(failure).__name__, failure)
