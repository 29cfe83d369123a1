"""Board, alerts and pages name metrics, alerts and reasons that exist, and the pages name all of them."""

import re
from pathlib import Path

import pytest
from observability.board import ROOT, alert_queries, board_queries, families_in
from prometheus_client import Metric
from unit.server.telemetry.test_metrics import Scraped

from cospan.cli.output.exit_codes import EXIT_CODES
from cospan.server.telemetry.metric_catalogue import METRICS, MetricKind
from cospan.server.telemetry.metrics import UNREAD
from cospan.wire import errors
from cospan.wire.messages import Disposition

OPERATIONS = ROOT / "docs" / "operations.md"
METRICS_PAGE = ROOT / "docs" / "reference" / "metrics.md"
ERRORS_PAGE = ROOT / "docs" / "reference" / "errors.md"


@pytest.fixture(scope="module")
def exported() -> dict[str, Metric]:
    """Family → what prometheus_client exports of it."""
    scraped = Scraped("a", "b", rounds=0)
    scraped.play(0, "a", "b")
    found = {family.name: family for family in scraped.registry.collect()}
    assert {"cospan_rounds", "process_open_fds"} <= set(found)
    return found


@pytest.fixture(scope="module")
def families(exported: dict[str, Metric]) -> set[str]:
    return set(exported)


def test_every_query_of_the_board_names_metrics_that_exist(families: set[str]) -> None:
    queries = board_queries()
    assert len(queries) > 20
    for title, query in queries.items():
        named = families_in(query)
        assert named, title
        assert named <= families, title


def test_every_alert_names_metrics_that_exist(families: set[str]) -> None:
    alerts = alert_queries()
    assert len(alerts) == Path(ROOT / "deploy/observability/alerts.yml").read_text().count("- alert:") > 10
    assert {name for query in alerts.values() for name in families_in(query)} <= families


def test_the_catalogue_has_every_metric_as_it_is_exported(exported: dict[str, Metric]) -> None:
    assert set(METRICS) == set(exported)
    for name, metric in METRICS.items():
        family = exported[name]
        assert family.type == metric.kind.value, name
        if metric.kind is not MetricKind.HISTOGRAM:
            labels = {label for sample in family.samples for label in sample.labels}
            assert labels <= set(metric.labels), name


def test_the_page_names_every_metric_and_no_other(families: set[str]) -> None:
    table = re.findall(r"^\| `((?:cospan|process)_\w+)", METRICS_PAGE.read_text("utf-8"), flags=re.MULTILINE)
    assert {name.removesuffix("_total") for name in table} == families


def test_the_page_names_every_alert_and_no_other() -> None:
    page = OPERATIONS.read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(Cospan\w+)`", page, flags=re.MULTILINE)) == set(alert_queries())


def test_the_page_names_every_reason() -> None:
    def leaves(kind: type[errors.CospanError]) -> set[str]:
        below = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
        return set().union(*map(leaves, below)) if below else {kind.reason}

    named = set(re.findall(r"^\| `([A-Z_]+)`", ERRORS_PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert leaves(errors.CospanError) | {UNREAD} <= named, "others are defined where they are raised"
    assert set(errors.REASONS) <= named


def test_the_page_names_every_exit_code_and_no_other() -> None:
    codes = re.findall(r"^\| (\d+) \|", ERRORS_PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(map(int, codes)) == set(EXIT_CODES)
    assert {kind.exit_code for kind in errors.CospanError.__subclasses__()} <= set(EXIT_CODES)


def test_why_a_gradient_did_not_count_is_explained() -> None:
    meaning = METRICS["cospan_gradients_rejected"].meaning
    assert all(disposition.value in meaning for disposition in Disposition)
