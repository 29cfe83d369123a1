"""What is wrong with logs, found before anything is learnt from them: sentences with file, row and remedy.

Rows with values that are not known are left out, and the chain is cut there: that is a note. A problem is what
cannot be learnt from at all, or what cuts the chain that often that the mapping is wrong and not the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from jaxtyping import Float

from cospan.client.logs.mapping import CLOCK, NANOSECONDS, LogMapping
from cospan.client.logs.rows import (
    CATEGORY,
    CHAIN,
    DUPLICATE,
    FALLING,
    FILE,
    GAP,
    MISSING,
    OFF_STEP,
    REWARD,
    TEXT,
    TIME,
    RowCounts,
    RowReader,
)
from cospan.client.logs.table_features import TableFeatures
from cospan.client.logs.tables.batch import Table, TableError
from cospan.wire.errors import CospanError
from cospan.wire.text import listed, split_remedy

_MOST_FALLING, _MOST_OFF_STEP, _MOST_TEXT = 0.01, 0.05, 0.1
"""Shares of the rows above which the file or its mapping is wrong, and not some rows."""
_MOST_OUTSIDE = 0.5
_FEW_OUTSIDE = 0.05

_LEFT_OUT = {
    MISSING: "a missing value",
    TEXT: "text in place of a number",
    CATEGORY: "a category that the mapping does not name",
    TIME: "no time",
    DUPLICATE: "the time of the row before",
}
_CUT = {
    GAP: "missing rows",
    OFF_STEP: "intervals that are no multiple of the step",
    FALLING: "time that goes back",
    FILE: "the end of a file",
    CHAIN: "another chain",
    REWARD: "a missing reward",
}


class Severity(Enum):
    """How bad something is."""

    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class LogFinding:
    """One thing that was found in the log of a site.

    Attributes:
        site: the log's name.
        severity: of a problem nothing is learnt.
        found: one clause, with file and row.
        remedy: what to do.
    """

    site: str
    severity: Severity
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found}; {self.remedy}"


@dataclass(eq=False, slots=True)
class SiteReport:
    """What the log of one site holds.

    Attributes:
        site: its name.
        counts: of its rows.
        transitions: that can be learnt.
        slots: transitions and the cuts between them.
        low, high: of each coordinate of the observation.
        outside: for each coordinate, how many rows lie outside the knots of its features.
        findings: what is to be said of it.
    """

    site: str
    counts: RowCounts
    transitions: int = 0
    slots: int = 0
    low: Float[np.ndarray, " k"] = field(default_factory=lambda: np.zeros(0))
    high: Float[np.ndarray, " k"] = field(default_factory=lambda: np.zeros(0))
    outside: Float[np.ndarray, " k"] = field(default_factory=lambda: np.zeros(0))
    findings: list[LogFinding] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether it can be learnt from."""
        return not any(each.severity is Severity.PROBLEM for each in self.findings)

    @property
    def line(self) -> str:
        """Its rows and transitions in one line, with what was left out and why."""
        counts = self.counts.kinds
        left = [f"{counts[kind]:,} with {words}" for kind, words in _LEFT_OUT.items() if counts[kind]]
        cuts = [f"{counts[kind]:,} by {words}" for kind, words in _CUT.items() if counts[kind]]
        line = f"{self.site}: {self.transitions:,} transitions in {self.counts.rows:,} rows"
        if left:
            line += f"; rows left out: {', '.join(left)}"
        return f"{line}; chain cut: {', '.join(cuts)}" if cuts else line


def check_log(mapping: LogMapping, table: Table) -> SiteReport:
    """Reads a log from beginning to end, and says what it holds and what is wrong with it."""
    reader = RowReader(mapping, table)
    report = SiteReport(table.name, reader.counts)
    size = len(mapping.observation)
    low, high, outside = np.full(size, np.inf), np.full(size, -np.inf), np.zeros(size)
    last = False
    try:
        for rows in reader:
            low = np.minimum(low, rows.observations.min(axis=0))
            high = np.maximum(high, rows.observations.max(axis=0))
            outside += _outside(mapping, rows.observations)
            report.transitions += int(rows.follows.sum())
            # A slot for each transition, and one for each cut between two of them.
            behind = np.concatenate([[last], rows.follows[:-1]])
            report.slots += int(rows.follows.sum() + (behind & ~rows.follows).sum())
            last = bool(rows.follows[-1])
    except CospanError as failure:
        sentence, remedy = split_remedy(str(failure))
        report.findings.append(
            LogFinding(table.name, Severity.PROBLEM, sentence, remedy or "see docs/your-logs.md")
        )
        return report
    report.slots -= int(report.slots > report.transitions and not last)
    report.low, report.high, report.outside = low, high, outside
    _judge(report, mapping)
    return report


def check_logs(mapping: LogMapping, tables: Sequence[Table]) -> list[SiteReport]:
    """The reports of all sites, with what shows only when they are compared."""
    reports = [check_log(mapping, table) for table in tables]
    steps = [each.counts.step for each in reports if each.is_sound and each.counts.step is not None]
    if mapping.step is None and steps:
        usual = float(np.median(steps))
        for each in reports:
            step = each.counts.step
            if step is not None and each.is_sound and abs(step - usual) > mapping.tolerance * usual:
                each.findings.append(
                    LogFinding(
                        each.site,
                        Severity.PROBLEM,
                        f"{each.site} has a step of {duration(step)}, and most sites {duration(usual)}",
                        "take the same step for all, or set log.step in the mapping",
                    )
                )
    return reports


def problems_in(reports: Sequence[SiteReport]) -> list[str]:
    """The problems of all sites, one sentence each."""
    return [str(each) for report in reports for each in report.findings if each.severity is Severity.PROBLEM]


def refuse_problems(reports: Sequence[SiteReport]) -> None:
    """Raises TableError where a log cannot be learnt from; its text has the first problems."""
    problems = problems_in(reports)
    if problems:
        more = (
            f" (and {len(problems) - 3} more problems; `cospan doctor --logs` lists all)"
            if len(problems) > 3
            else ""
        )
        raise TableError("; ".join(problems[:3]) + more)


def duration(step: float) -> str:
    """A step in nanoseconds in words; one in the unit of a numeric time as it is."""
    for unit in ("d", "h", "min", "s", "ms"):
        if step >= NANOSECONDS[unit]:
            return f"{step / NANOSECONDS[unit]:g} {unit}"
    return f"{step:g}"


def _outside(mapping: LogMapping, observations: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    if not isinstance(mapping.features, TableFeatures):
        return np.zeros(observations.shape[1])
    columns = mapping.features.columns
    return np.array([column.outside(observations[:, place]) for place, column in enumerate(columns)], np.float64)


def _judge(report: SiteReport, mapping: LogMapping) -> None:
    """Adds what the counts of a log show."""
    site, counts = report.site, report.counts
    if not counts.rows:
        _problem(report, f"{site} has no rows", "write its rows, or leave it out")
        return
    _judge_rows(report)
    _judge_order(report)
    if not report.transitions:
        _problem(
            report,
            f"{site} has {counts.rows:,} rows, and no two of them follow one another with a reward between",
            "look at the notes, and at log.step and log.reward in the mapping",
        )
        return
    _judge_values(report, mapping)


def _judge_rows(report: SiteReport) -> None:
    counts = report.counts
    remedies = {
        MISSING: "they are left out; give the values if they are known",
        TEXT: "correct them, or list the text in log.missing",
        CATEGORY: "add the category to the mapping's values, for all sites",
        TIME: "correct the stamps, or set log.time_format",
        DUPLICATE: "keep one of them; where clocks go back in autumn, write the time in UTC",
    }
    for kind, words in _LEFT_OUT.items():
        number = counts.kinds[kind]
        if not number:
            continue
        many = kind is not MISSING and number > _MOST_TEXT * counts.rows
        rows = "1 row has" if number == 1 else f"{number:,} rows have"
        found = f"{rows} {words}, the first in {counts.first[kind]}"
        report.findings.append(
            LogFinding(report.site, Severity.PROBLEM if many else Severity.NOTE, found, remedies[kind])
        )


def _judge_order(report: SiteReport) -> None:
    counts = report.counts
    step = counts.step
    for kind in (GAP, OFF_STEP, FALLING, REWARD):
        number = counts.kinds[kind]
        if not number:
            continue
        times = "once" if number == 1 else f"{number:,} times"
        found, remedy = f"{_CUT[kind]}, {times}, first at {counts.first[kind]}", "the chain is cut there"
        bad = False
        if kind == OFF_STEP:
            bad = number > _MOST_OFF_STEP * counts.rows
            found += f"; the step is {duration(step or 0.0)}"
            remedy = "resample the log to one step, or set log.step" if bad else remedy
        elif kind == FALLING:
            bad = number > _MOST_FALLING * counts.rows + 1
            remedy = "sort the rows by time" if bad else f"{remedy}; where clocks go back, write the time in UTC"
        elif kind == REWARD:
            remedy = "no step is learnt from these rows; see log.reward"
        report.findings.append(LogFinding(report.site, Severity.PROBLEM if bad else Severity.NOTE, found, remedy))


def _judge_values(report: SiteReport, mapping: LogMapping) -> None:
    names = mapping.observation
    of_table = isinstance(mapping.features, TableFeatures)  # others may make no use of a column
    constant = [
        name
        for name, low, high in zip(names, report.low, report.high, strict=True)
        if low == high and name not in CLOCK and of_table
    ]
    if constant:
        report.findings.append(
            LogFinding(
                report.site,
                Severity.NOTE,
                f"{listed(constant)} never changes in {report.site}",
                "leave it out of the features if it is constant everywhere",
            )
        )
    kept = report.counts.rows - sum(report.counts.kinds[kind] for kind in _LEFT_OUT)
    for name, number, low, high in zip(names, report.outside, report.low, report.high, strict=True):
        if number > _FEW_OUTSIDE * kept:
            bad = number > _MOST_OUTSIDE * kept
            report.findings.append(
                LogFinding(
                    report.site,
                    Severity.PROBLEM if bad else Severity.NOTE,
                    f"{name} lies outside the range of its features in {number / kept:.0%} of the rows of "
                    f"{report.site} (it is {low:g} to {high:g})",
                    "widen its range or knots for all sites; is it in another unit?" if bad else "it is clipped",
                )
            )


def _problem(report: SiteReport, found: str, remedy: str) -> None:
    report.findings.append(LogFinding(report.site, Severity.PROBLEM, found, remedy))
