"""Board, alerts and docs/operations.md name metrics that exist, and the page names all of them."""

import re
from pathlib import Path

import pytest
from observability.board import ROOT, alert_queries, board_queries, families_in
from unit.server.telemetry.test_metrics import Scraped

from cospan.server.telemetry.metrics import UNREAD
from cospan.wire import errors
from cospan.wire.messages import Disposition

PAGE = ROOT / "docs" / "operations.md"


@pytest.fixture(scope="module")
def families() -> set[str]:
    scraped = Scraped("a", "b", rounds=0)
    scraped.play(0, "a", "b")
    found = {family.name for family in scraped.registry.collect()}
    assert {"cospan_rounds", "process_open_fds"} <= found
    return found


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


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


def test_the_page_names_every_metric_and_no_other(families: set[str], page: str) -> None:
    table = re.findall(r"^\| `((?:cospan|process)_\w+)", page, flags=re.MULTILINE)
    assert {name.removesuffix("_total") for name in table} == families


def test_the_page_names_every_alert_and_no_other(page: str) -> None:
    assert set(re.findall(r"^\| `(Cospan\w+)`", page, flags=re.MULTILINE)) == set(alert_queries())


def test_the_page_names_every_reason_and_no_other(page: str) -> None:
    def leaves(kind: type[errors.CospanError]) -> set[str]:
        below = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
        return set().union(*map(leaves, below)) if below else {kind.reason}

    named = set(re.findall(r"^\| `([A-Z_]+)`", page, flags=re.MULTILINE))
    assert named == leaves(errors.CospanError) | {UNREAD}
    assert set(errors.REASONS) <= named
    for disposition in Disposition:
        assert f"`{disposition.value}`" in page
