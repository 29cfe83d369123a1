"""The benchmark of logs, at tiny size."""

from unit.lab.benchmarks.test_orthonormalise import checked, quiet

from cospan.benchmarks import logs


def test_logs() -> None:
    report = logs.benchmark([logs.Case("parquet", 24, 500), logs.Case("csv", 100, 500)], quiet)
    checked(report)
    assert [row["feature_dim"] for row in report.rows] == [95, 95]
    assert len(logs.cases()) == 6
