"""A feed in the place of a site's environment, and what of it the agent's file includes."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from cospan.client.environment.ownership import close_site, closing_on_failure
from cospan.client.environment.workload_loader import make_site
from cospan.client.feeds.errors import BacklogError
from cospan.client.feeds.feed import Feed
from cospan.client.feeds.feed_source import FeedSource
from cospan.client.feeds.step_forms import form_of
from cospan.client.feeds.told import FeedSettings
from cospan.client.logs.mapping import step_of
from cospan.client.session.settings import ClientSettings
from cospan.client.step_source import StepSource
from cospan.client.workload import AnySite, Exogenous, Site, SourceSite, Workload
from cospan.wire.errors import InvalidValueError

log = logging.getLogger(__name__)

SUFFIX = ".feed"


class SiteFeed:
    """The feed of one agent, and which of its steps the rounds have taken."""

    def __init__(self, feed: Feed, exogenous: Exogenous | None, *, has_file: bool) -> None:
        """`has_file`: whether the agent keeps a file, so that steps stay until that includes them."""
        self.feed = feed
        self._exogenous, self._has_file = exogenous, has_file
        self._source: FeedSource | None = None
        self.on_silence: Callable[[float], None] = lambda _: None
        """See `FeedSource`."""
        self._lock = threading.Lock()
        self._marks: dict[int, int] = {}
        """By round: the step with which the next one begins."""

    @classmethod
    def opened(
        cls, workload: Workload, index: int | None, name: str, client: ClientSettings, settings: FeedSettings
    ) -> "SiteFeed":
        """Opens the feed of an agent. A site is made to see what observations are, and closed.

        Raises:
            InvalidValueError: the agent has no index, its observations are no numbers, or a setting is wrong.
            BacklogError: the backlog cannot be used.
        """
        if index is None:
            raise InvalidValueError("an agent with a feed is the agent of a certain site; give its index")
        if client.state_file is None and settings.backlog is not None:
            raise InvalidValueError(
                f"the backlog {settings.backlog} is kept for an agent that keeps a file as well: a restarted agent "
                "would not know which steps it has learnt; give it a state_file (--output)"
            )
        step = None if settings.step is None else _step(settings.step)
        site = make_site(workload, index, 0)
        with closing_on_failure(site):
            form = form_of(site, step=step, reward_at_next=settings.reward_at_next)
            exogenous = site.exogenous if isinstance(site, Site) else None
        close_site(site)
        feed = Feed(name, form, site.features, settings, _path(client.state_file, settings.backlog, name))
        return cls(feed, exogenous, has_file=client.state_file is not None)

    def site_of(self, site: AnySite) -> SourceSite:
        """The site with the feed in place of its environment, which is closed."""
        close_site(site)
        return SourceSite(self._opened, site.features, site.reference, site.label)

    def _opened(self, _: str) -> StepSource:
        self._source = FeedSource(self.feed, self.feed.features, self._exogenous, self.on_silence)
        return self._source

    def mark(self, round_number: int) -> None:
        """A round has been learnt; in the learning thread."""
        anchor = None if self._source is None else self._source.anchor
        if anchor is None:
            return
        with self._lock:
            self._marks[round_number] = anchor
        if not self._has_file:
            self.saved(round_number + 1)

    def saved(self, rounds: int) -> None:
        """The agent's file includes all rounds below this one, so their steps can go; in any thread."""
        with self._lock:
            past = [each for each in self._marks if each < rounds]
            anchor = max((self._marks.pop(each) for each in past), default=None)
        if anchor is None:
            return
        try:
            self.feed.release(anchor)
        except BacklogError as failure:
            log.warning("%s; the steps that were learnt stay in it", failure)


def _step(given: str | float) -> float:
    """In nanoseconds; numbers are seconds."""
    return step_of(f"{given}s" if isinstance(given, int | float) else given, "the time step of the feed")


def _path(state_file: Path | str | None, backlog: Path | str | None, name: str) -> Path | None:
    if backlog is not None:
        return Path(backlog).resolve()
    if state_file is None:
        return None
    path = Path(state_file)
    return (path / f"{name}{SUFFIX}" if path.is_dir() else path.with_suffix(SUFFIX)).resolve()
