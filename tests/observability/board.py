"""The queries of the Grafana board and of the alerts, and the metrics that they name."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "deploy" / "observability"
BOARD = FILES / "grafana" / "dashboards" / "cospan.json"
_NAME = re.compile(r"\b(?:cospan|process)_[a-z_]+")
_SUFFIX = re.compile(r"_(bucket|count|sum|total)$")


def board_queries() -> dict[str, str]:
    """Panel and legend → query, with what Grafana fills in filled in."""
    board: dict[str, Any] = json.loads(BOARD.read_text(encoding="utf-8"))
    found = {}
    for panel in board["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "10s")
            found[f"{panel['title']}: {target['legendFormat']}"] = query
    return found


def alert_queries() -> dict[str, str]:
    """Alert → its expression; the file is plain enough to be read line by line."""
    text = (FILES / "alerts.yml").read_text(encoding="utf-8")
    rules = re.findall(r"- alert: (\w+)\n\s+expr: (.*?)\n\s+(?:for|labels):", text, flags=re.DOTALL)
    return dict(rules)


def families_in(query: str) -> set[str]:
    """The metrics that a query names, as they are called without the suffixes of their kind."""
    return {_SUFFIX.sub("", name) for name in _NAME.findall(query)}
