"""The benchmark of orthonormalisation, at tiny size."""

import json

import numpy as np
import pytest

from cospan.benchmarks import orthonormalise
from cospan.benchmarks.tools.machine import describe
from cospan.benchmarks.tools.report import Report


def quiet(_text: str) -> None:
    """In place of a progress line."""


def checked(report: Report) -> dict[str, object]:
    """The document of a report, which must be JSON; every column of the table is in every row."""
    document = report.document(describe())
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    keys = {column.key for column in report.columns}
    for row, cells in zip(report.rows, report.cells(), strict=True):
        assert keys <= row.keys() == report.rows[0].keys()
        assert len(cells) == len(report.columns)
    return document


def test_orthonormalise() -> None:
    report = orthonormalise.benchmark([(2048, 8), (20, 3)], 0.0, quiet)
    checked(report)
    assert [(row["feature_dim"], row["rank"], row["condition"]) for row in report.rows] == [
        *((2048, 8, 1.5), (2048, 8, 1e7)),
        *((20, 3, 1.5), (20, 3, 1e7)),
    ]
    for row in report.rows:
        assert isinstance(row["error"], float)
        assert row["error"] < 1e-14
    assert np.linalg.cond(orthonormalise.conditioned(300, 5, 1e7)) == pytest.approx(1e7, rel=1e-6)
