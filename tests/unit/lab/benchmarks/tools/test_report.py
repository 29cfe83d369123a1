"""The document and the table of a benchmark."""

from cospan.benchmarks.tools.report import Column, Report


def test_a_single_case_stands_at_the_top_of_its_document() -> None:
    columns = (Column("name", "name"), Column("size", "size", ".2f"))
    one = Report("x", ("note",), columns, ({"name": "a", "size": 1.234, "more": None},))
    assert one.document({"cpu": "c"})["size"] == 1.234
    assert one.cells() == [["a", "1.23"]]
    two = Report("x", (), columns, one.rows * 2).document({})
    assert "size" not in two
    assert two["cases"] == [dict(row) for row in one.rows] * 2
