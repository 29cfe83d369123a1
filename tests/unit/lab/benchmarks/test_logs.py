"""The benchmark of logs, at tiny size."""

from unit.lab.benchmarks.test_orthonormalise import checked, quiet

from cospan.benchmarks import logs


def test_logs() -> None:
    report = logs.benchmark([logs.Case("parquet", 24, 500), logs.Case("csv", None, 500)], quiet)
    checked(report)
    assert [row["feature_dim"] for row in report.rows] == [95, 95]
    assert report.rows[1]["steps_per_round"] == 24
    assert [case.rows for case in logs.cases() if case.steps is None] == [1_000_000] * 2
