"""Findings of `cospan doctor`: a grade, and a remedy for a problem."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from cospan.wire.errors import CospanError
from cospan.wire.text import MAX_SENTENCE, counted, printable, split_remedy


class Grade(Enum):
    """Result of a check."""

    GOOD = "ok"
    NOTE = "note"
    BAD = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what it is, in a word or two.
        grade: how well it is.
        found: one clause that says what was found.
        remedy: what to do; empty if nothing need be done.
    """

    subject: str
    grade: Grade
    found: str
    remedy: str = ""


def good(subject: str, found: str) -> Finding:
    """No problem."""
    return Finding(subject, Grade.GOOD, printable(found, MAX_SENTENCE))


def note(subject: str, found: str, remedy: str) -> Finding:
    """It works, and could be better."""
    return Finding(subject, Grade.NOTE, printable(found, MAX_SENTENCE), printable(remedy, MAX_SENTENCE))


def bad(subject: str, found: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(subject, Grade.BAD, printable(found, MAX_SENTENCE), printable(remedy, MAX_SENTENCE))


def of_failure(subject: str, failure: CospanError) -> Finding:
    """An error as a finding; the remedy is after the last semicolon of its text, or that of its reason."""
    sentence, remedy = split_remedy(str(failure))
    return bad(subject, sentence, remedy or failure.remedy)


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Findings as text: remedies below problems, and their number in the last line."""
    width = max((len(finding.subject) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.grade.value:<8}{finding.subject:<{width}}  {finding.found}")
        if finding.remedy:
            lines.append(f"{'':<8}{'':<{width}}  → {finding.remedy}")
    problems = sum(finding.grade is Grade.BAD for finding in findings)
    return [*lines, "", f"{counted(problems, 'problem')} in {len(findings)} findings"]


def finding_document(finding: Finding) -> dict[str, str | None]:
    """The JSON document of a finding."""
    return {
        "subject": finding.subject,
        "grade": finding.grade.value,
        "found": finding.found,
        "remedy": finding.remedy or None,
    }
