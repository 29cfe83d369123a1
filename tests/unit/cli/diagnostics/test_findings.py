"""Findings and their lines."""

from cospan.cli.diagnostics.findings import bad, finding_lines, good, note, of_failure
from cospan.wire.errors import NoFreeSiteError


def test_findings_are_told_with_their_remedies() -> None:
    lines = finding_lines(
        [good("Python", "3.12"), note("BLAS", "8 threads", "one is enough"), bad("x", "no", "do")]
    )
    assert lines == [
        "ok      Python  3.12",
        "note    BLAS    8 threads",
        "                → one is enough",
        "problem x       no",
        "                → do",
        "",
        "1 problem in 3 findings",
    ]


def test_an_error_without_a_remedy_has_that_of_its_reason() -> None:
    found = of_failure("coordinator", NoFreeSiteError("all 8 sites have agents"))
    assert (found.found, found.remedy) == ("all 8 sites have agents", NoFreeSiteError.remedy)
    found = of_failure("coordinator", NoFreeSiteError("all 8 sites have agents; start 8 at most"))
    assert (found.found, found.remedy) == ("all 8 sites have agents", "start 8 at most")
