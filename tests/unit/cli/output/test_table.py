"""Tables of text."""

from cospan.cli.output.table import table


def test_a_table_never_cuts_numbers() -> None:
    lines = table(("a", "n"), [("x" * 30, "123456789")], numbers=(1,), width=10)
    assert lines[1].endswith("123456789")
