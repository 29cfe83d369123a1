"""The options --logs, --log, --mapping and --follow: they name a workload of logs."""

from pathlib import Path

from cospan.client.logs.log_workload import reference_of
from cospan.wire.errors import InvalidValueError


def workload_or_logs(workload: str | None, logs: str | None, mapping: Path | None, *, follow: bool) -> str | None:
    """The workload that `cospan run` was given: by its name, or by logs and their mapping.

    Raises:
        InvalidValueError: both are given, or one of the two is missing.
    """
    if mapping is None:
        _refuse_alone("--logs", logs, follow=follow)
        return workload
    _refuse_both("--mapping", workload)
    return reference_of(mapping, logs or "", follow=follow)


def workload_or_log(
    workload: str | None,
    log: str | None,
    mapping: Path | None,
    *,
    follow: bool,
    feed: str | None = None,
    group: bool = False,
) -> str:
    """The same for `cospan agent`: of the log of one site, or a feed; of a group the logs of all sites of the run.

    Raises:
        InvalidValueError: neither a workload nor a log is given, or both.
    """
    if feed is not None and (log is not None or follow):
        given = "--follow" if log is None else f"--log {log}"
        raise InvalidValueError(
            f"the steps come from --feed {feed}, and {given} is of a log; leave out one of them"
        )
    if mapping is None:
        _refuse_alone("--log", log, follow=follow)
        if workload is None:
            raise InvalidValueError(
                "no workload is named; say which, as in `cospan agent queues`, or give --mapping with --log or "
                "--feed"
            )
        return workload
    _refuse_both("--mapping", workload)
    if feed is not None:
        return reference_of(mapping, one=True)
    if group:
        return reference_of(mapping, log or "", follow=follow)
    if log is None:
        raise InvalidValueError(f"--mapping {mapping} is of logs; name that of this site with --log")
    return reference_of(mapping, log, one=True, follow=follow)


def _refuse_alone(name: str, data: str | None, *, follow: bool) -> None:
    if data is not None:
        raise InvalidValueError(f"{name} {data} needs --mapping, which says what its columns are")
    if follow:
        raise InvalidValueError(f"--follow waits for logs to grow; name them with {name} and --mapping")


def _refuse_both(name: str, workload: str | None) -> None:
    if workload is not None:
        raise InvalidValueError(f"{name} names a workload of logs, and {workload!r} is another; leave out one")
