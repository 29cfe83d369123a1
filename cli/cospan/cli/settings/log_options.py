"""The options --logs, --log, --mapping, --observation and so on: they name a workload of logs."""

import os
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from cospan.client.logs.log_workload import reference_of
from cospan.wire.console import say
from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.files.safe_files import writing_whole

if TYPE_CHECKING:
    from cospan.client.logs.guess import GivenNames


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


def columns_of(
    logs: str | None, mapping: Path | None, observation: str | None, reward: str | None, time: str | None
) -> "GivenNames | None":
    """What is said of the columns of logs; None where they have a mapping, or there are none.

    Raises:
        InvalidValueError: columns are named beside a mapping, or without logs.
    """
    said = {"--observation": observation, "--reward": reward, "--time": time}
    flags = [name for name, value in said.items() if value is not None]
    if mapping is not None or logs is None:
        if flags and mapping is not None:
            raise InvalidValueError(f"{flags[0]} is said without a mapping, and {mapping} is one; leave out one")
        if flags:
            raise InvalidValueError(f"{flags[0]} is of logs; name them with --logs")
        return None
    from cospan.client.logs.guess import GivenNames

    names = None if observation is None else tuple(each.strip() for each in observation.split(",") if each.strip())
    return GivenNames(names, reward, time)


def mapping_kept(logs: str, columns: "GivenNames", output: Path | None, *, quiet: bool) -> Path:
    """The mapping of logs that come without one: it is shown, and kept beside the run folder for all processes.

    Its name is that of its text, so the same words find the same file again.

    Raises:
        CospanError: nothing can be made of the columns, or the file cannot be written.
    """
    from cospan.cli.run_folder.layout import RUNS
    from cospan.client.logs.guess import guessed_mapping
    from cospan.client.logs.tables.sites import tables_of

    folder = RUNS if output is None else output.parent
    data = logs if logs.startswith("minari:") else os.path.relpath(logs, folder)
    text = guessed_mapping(tables_of(logs), columns, data=data, remarks=False)
    path = folder / f"mapping-{sha256(text.encode()).hexdigest()[:8]}.toml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with writing_whole(path, durable=False) as file:
            file.write(text.encode())
    except OSError as failure:
        raise RunFileError(f"cannot write the mapping {path}: {failure.strerror}; name one: --mapping") from failure
    if not quiet:
        say(f"mapping of these logs, in {path}; copy and change it, and name it with --mapping:")
        for line in text.splitlines():
            say(f"  {line}" if line else "")
    return path


def _refuse_alone(name: str, data: str | None, *, follow: bool) -> None:
    if data is not None:
        raise InvalidValueError(f"{name} {data} needs --mapping, which says what its columns are")
    if follow:
        raise InvalidValueError(f"--follow waits for logs to grow; name them with {name} and --mapping")


def _refuse_both(name: str, workload: str | None) -> None:
    if workload is not None:
        raise InvalidValueError(f"{name} names a workload of logs, and {workload!r} is another; leave out one")
