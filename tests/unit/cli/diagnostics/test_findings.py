"""Findings and their lines."""

from cospan.cli.diagnostics.findings import bad, finding_lines, good, note


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
