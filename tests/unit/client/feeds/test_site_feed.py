"""A feed in the place of an environment: where its backlog is, and which steps it gives up."""

from pathlib import Path

import pytest

from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.feeds.site_feed import SiteFeed
from cospan.client.feeds.told import FeedSettings, FeedStep
from cospan.client.session.settings import ClientSettings
from cospan.wire.errors import InvalidValueError

QUEUES = load_workload("queues")


def opened(client: ClientSettings, **settings: object) -> SiteFeed:
    return SiteFeed.opened(QUEUES, 7, "site-7", client, FeedSettings(**settings))  # type: ignore[arg-type]


def test_the_backlog_stands_beside_the_agents_file(tmp_path: Path) -> None:
    for state_file, expected in (("a.npz", "a.feed"), (".", "site-7.feed")):
        feed = opened(ClientSettings(state_file=tmp_path / state_file)).feed
        assert feed.path == tmp_path.resolve() / expected
        feed.close()
    named = opened(ClientSettings(state_file=tmp_path / "b.npz"), backlog=tmp_path / "other").feed
    assert named.path == tmp_path.resolve() / "other"
    named.close()
    assert opened(ClientSettings()).feed.path is None


def test_times_of_vectors_are_seconds_and_a_step_is_a_duration() -> None:
    for step in ("15min", 900):
        feed = opened(ClientSettings(), step=step).feed
        feed.observe(3, 1.0, at=1_704_110_400)
        feed.observe(3, 1.0, at="2024-01-01T12:15")
        assert [each.follows for each in feed.settled_from(0)[0]] == [False, True]
    with pytest.raises(InvalidValueError, match="time step of the feed"):
        opened(ClientSettings(), step="soon")


@pytest.mark.parametrize("has_file", [False, True])
def test_steps_go_when_a_file_includes_them_or_at_once_where_there_is_none(tmp_path: Path, has_file: bool) -> None:
    site_feed = opened(ClientSettings(state_file=tmp_path / "a.npz" if has_file else None))
    feed = site_feed.feed
    feed.observe_all([FeedStep(3, 1.0, each) for each in range(13)])
    site = site_feed.site_of(make_site(QUEUES, 7, 0))
    site_feed.mark(0)
    source = site.open_source("site-7")
    for round_number in range(3):
        source.advance(4)
        site_feed.mark(round_number)
    # The step with which the next round begins stays.
    assert feed.status().held == (13 if has_file else 0)
    site_feed.saved(2)
    assert feed.status().held == (4 if has_file else 0)
    site_feed.saved(1)
    assert feed.status().held == (4 if has_file else 0)
    feed.close()
    site_feed.saved(3)
