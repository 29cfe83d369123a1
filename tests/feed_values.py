"""Feeds for tests: one column, and an agent called site-7."""

from pathlib import Path
from typing import Any

from cospan.client.feeds.feed import Feed
from cospan.client.feeds.step_forms import ColumnForm
from cospan.client.feeds.told import FeedSettings
from cospan.client.logs.mapping import mapping_of

DOCUMENT: dict[str, Any] = {
    "log": {"time": "at", "step": 1, "reward": "r"},
    "features": {"x": {"kind": "numeric", "range": [0, 100], "knots": 2}},
}
MAPPING = mapping_of(DOCUMENT)


def feed_of(path: Path | None = None, *, name: str = "site-7", **settings: Any) -> Feed:
    """A feed of the column x, with a time step of 1."""
    chosen = FeedSettings(**settings)
    form = ColumnForm(MAPPING, step=None, reward_at_next=chosen.reward_at_next)
    if isinstance(chosen.step, float):
        form.step_seconds = chosen.step
    return Feed(name, form, MAPPING.features, chosen, path)
