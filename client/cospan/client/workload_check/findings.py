"""What a check finds: its severity, what is wrong, where, and the remedy."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from cospan.wire.errors import CospanError, WorkloadBehaviourError
from cospan.wire.text import MAX_SENTENCE, counted, printable, split_remedy


class Severity(Enum):
    """How much a finding matters."""

    PROBLEM = "problem"
    """A run would fail, or learn something wrong."""
    WARNING = "warning"
    """A run works, but probably not as it was meant."""
    NOTE = "note"
    """Something to know; nothing need be done."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check has found; `str` gives its sentence.

    Attributes:
        severity: how much it matters.
        rule: a stable name of what was checked, as `reward-finite`.
        what: a clause that says what was found.
        where: the site, and the step where there is one; empty for the whole workload.
        remedy: what to do; empty where nothing need be done.
    """

    severity: Severity
    rule: str
    what: str
    where: str = ""
    remedy: str = ""

    def __post_init__(self) -> None:
        for name in ("what", "where", "remedy"):
            object.__setattr__(self, name, printable(getattr(self, name), MAX_SENTENCE))

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.severity.value}: {place}{self.what}{remedy}"

    @classmethod
    def of_failure(cls, rule: str, failure: CospanError, where: str = "") -> "Finding":
        """A problem from an error; the remedy is after the last semicolon of its text."""
        what, remedy = split_remedy(str(failure))
        return cls(Severity.PROBLEM, rule, what, where, remedy)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` has found; `str` gives a line for each finding, and a summary.

    Attributes:
        workload: its name.
        sites: indices of the sites that were checked.
        steps: that each of them was played.
        findings: problems first, then warnings, then notes.
    """

    workload: str
    sites: tuple[int, ...]
    steps: int
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings because of which a run would fail or learn something wrong."""
        return self._of(Severity.PROBLEM)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings with which a run works, but probably not as it was meant."""
        return self._of(Severity.WARNING)

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def raise_problems(self) -> None:
        """Nothing, where there is no problem.

        Raises:
            WorkloadBehaviourError: there is one; the text has the sentences of all.
        """
        if self.problems:
            raise WorkloadBehaviourError(" | ".join(map(str, self.problems)))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.findings), self.summary])

    @property
    def summary(self) -> str:
        """How much was checked, and the number of problems and warnings."""
        found = f"{counted(len(self.problems), 'problem')}, {counted(len(self.warnings), 'warning')}"
        return f"workload {self.workload!r}: {found} in {self.steps} steps of {counted(len(self.sites), 'site')}"

    def _of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is severity)


def in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """Problems first, then warnings, then notes; otherwise as they were found, and equal ones once."""
    ranks = list(Severity)
    return tuple(sorted(dict.fromkeys(findings), key=lambda finding: ranks.index(finding.severity)))
