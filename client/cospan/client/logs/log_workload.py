"""A fleet of logs as a workload: one site for each file, folder or frame.

On the command line and in a specification such a workload is `logs:MAPPING:DATA`, or `logs:MAPPING` where the
mapping names its data; `log:MAPPING:DATA` is the log of one agent, whatever its index, and `log:MAPPING` has the
features alone, as a coordinator needs them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cospan.client.learning.default_run import DEFAULT_ROUNDS
from cospan.client.logs.check import SiteReport, check_logs, refuse_problems
from cospan.client.logs.log_source import LogSource
from cospan.client.logs.mapping import LogMapping, load_mapping, mapping_of
from cospan.client.logs.tables.batch import Table
from cospan.client.logs.tables.frame import Frame
from cospan.client.logs.tables.sites import table_of, tables_of
from cospan.client.step_source import StepSource
from cospan.client.workload import SourceSite, Workload
from cospan.wire.errors import InvalidValueError

FLEET, ONE = "logs:", "log:"
_FOLLOWED = "?follow"
_DEFAULT_STEPS = 24
_MOST_STEPS = 4096
"""The largest L by default: an agent's memory grows with it, and beyond some thousands its speed does not."""
_MOST_LINES = 50


@dataclass(eq=False)
class LogFleet:
    """The logs of a fleet.

    Attributes:
        mapping: of all of them.
        tables: one for each site, in the order of their names.
        name: of the workload.
        follow: whether they may grow.
    """

    mapping: LogMapping
    tables: Sequence[Table]
    name: str = "logs"
    follow: bool = False

    @cached_property
    def reports(self) -> list[SiteReport]:
        """What each log holds; all are read for it, once."""
        return check_logs(self.mapping, self.tables)

    def rounds_of(self, steps_per_round: int) -> int:
        """The rounds in which all logs are learnt to their ends.

        Raises:
            TableError: a log cannot be learnt from.
        """
        refuse_problems(self.reports)
        return max(1, *(-(-report.slots // steps_per_round) for report in self.reports))

    def steps_of(self) -> int:
        """L where nobody names one: what gives the longest log `DEFAULT_ROUNDS` rounds, 24 to 4096.

        A round has a cost of its own, and a log has all its data at once: so a long one takes larger rounds before
        it takes more of them.

        Raises:
            TableError: a log cannot be learnt from.
        """
        refuse_problems(self.reports)
        longest = max(report.slots for report in self.reports)
        return min(_MOST_STEPS, max(_DEFAULT_STEPS, -(-longest // DEFAULT_ROUNDS)))

    def describe(self) -> list[str]:
        """What each log holds, and how many rows were left out and why; nothing of logs that are followed."""
        if self.follow:
            return []
        lines = [report.line for report in self.reports[:_MOST_LINES]]
        if len(self.reports) > _MOST_LINES:
            lines.append(f"and the logs of {len(self.reports) - _MOST_LINES} more sites")
        found = sum(len(report.findings) for report in self.reports)
        if found:
            lines.append(
                f"{found:,} notes on these logs, with rows and remedies: cospan doctor --logs … --mapping …"
            )
        return lines

    def make_site(self, index: int, seed: int) -> SourceSite:
        """The site of a log; `seed` has no use. Raises ValueError where there is none."""
        del seed
        if not 0 <= index < len(self.tables):
            raise ValueError(f"there are logs of {len(self.tables)} sites")
        return _site(self.mapping, self.tables[index], follow=self.follow)

    @property
    def workload(self) -> Workload:
        """The fleet as a workload."""
        return Workload(
            make_site=self.make_site,
            name=self.name,
            rank=self.mapping.rank,
            steps_per_round=self.mapping.steps_per_round or _DEFAULT_STEPS,
            max_agents=len(self.tables),
            rounds_of=None if self.follow else self.rounds_of,
            steps_of=None if self.follow or self.mapping.steps_per_round else self.steps_of,
            describe=self.describe,
        )

    @classmethod
    def of_frames(
        cls, frames: Mapping[str, Any], mapping: LogMapping | Path | str | Mapping[str, Any]
    ) -> "LogFleet":
        """The fleet of data frames, by the names of their sites.

        Raises:
            InvalidValueError: there are none, or the mapping cannot be used.
        """
        if not frames:
            raise InvalidValueError("there are no frames; give one for each site, by its name")
        return cls(mapping_from(mapping), [Frame(str(name), frame) for name, frame in frames.items()], "frames")


def mapping_from(given: LogMapping | Path | str | Mapping[str, Any]) -> LogMapping:
    """A mapping as it is, of a file, or of the tables of a TOML document.

    Raises:
        InvalidValueError: it is none.
    """
    if isinstance(given, LogMapping):
        return given
    return mapping_of(given) if isinstance(given, Mapping) else load_mapping(Path(given))


def log_fleet(mapping_file: Path, data: str = "", *, follow: bool = False) -> LogFleet:
    """The logs that a mapping's file and `data` name.

    Raises:
        InvalidValueError: the mapping cannot be read, or there are no logs.
    """
    mapping = load_mapping(mapping_file)
    if not data and not mapping.data:
        raise InvalidValueError(
            f"{mapping_file} names no data; set log.data there, or name the logs: --logs stations/"
        )
    tables = tables_of(data) if data else tables_of(mapping.data, mapping_file.parent)
    return LogFleet(mapping, tables, mapping_file.stem, follow)


def reference_of(mapping_file: Path, data: str = "", *, one: bool = False, follow: bool = False) -> str:
    """How such a workload is named; see the module."""
    return f"{ONE if one else FLEET}{mapping_file}{f':{data}' if data else ''}{_FOLLOWED if follow else ''}"


def fleet_of_reference(reference: str) -> LogFleet | Workload:
    """The logs that a workload's name stands for: a fleet, or the workload of one agent's log.

    Raises:
        InvalidValueError: the mapping cannot be read, or there are no logs.
    """
    follow = reference.endswith(_FOLLOWED)
    kind, _, rest = reference.removesuffix(_FOLLOWED).partition(":")
    mapping, separator, data = rest.partition(".toml:")
    file = Path(f"{mapping}.toml" if separator else rest)
    if f"{kind}:" == FLEET:
        return log_fleet(file, data, follow=follow)
    return _of_one(load_mapping(file), table_of(data) if data else None, file.stem, follow=follow)


def workload_of_reference(reference: str) -> Workload:
    """The workload of such a name; see `fleet_of_reference`."""
    found = fleet_of_reference(reference)
    return found if isinstance(found, Workload) else found.workload


def _of_one(mapping: LogMapping, table: Table | None, name: str, *, follow: bool) -> Workload:
    return Workload(
        make_site=lambda index, seed: _site(mapping, table, follow=follow),
        name=name,
        rank=mapping.rank,
        steps_per_round=mapping.steps_per_round or _DEFAULT_STEPS,
    )


def _site(mapping: LogMapping, table: Table | None, *, follow: bool) -> SourceSite:
    """The site of a log; without one it has features alone, as a coordinator needs them."""

    def opened(name: str) -> StepSource:
        if table is None:
            raise InvalidValueError(f"no log is named for {name}; give one with --log")
        return LogSource(mapping, table, name, follow=follow)

    return SourceSite(opened, mapping.features, label="" if table is None else table.name, mapping=mapping)
