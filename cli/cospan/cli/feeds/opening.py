"""--feed: what it names, and the thread that takes steps from there."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cospan.client.feeds.feed import Feed
from cospan.client.feeds.told import BACKLOG_STEPS, REWARD_DELAY, FeedSettings
from cospan.wire.address import Address, parse_address, parse_host
from cospan.wire.errors import InvalidValueError

STDIN = "-"
Report = Callable[[str], None]
"""Called, by any thread, with a sentence for people."""
_EXPECTED = "it must be - (standard input), http://HOST:PORT, unix:PATH, or mqtt://HOST/TOPIC"
_MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_KNOWN = ("unix:", "http://", "mqtt://", "mqtts://")


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """The options of `cospan agent` for a feed.

    Attributes:
        source: as --feed names it.
        secret_file: with the token of HTTP, or the password of MQTT; None without one.
        limit: steps that the backlog may hold.
        reward_delay: how many later steps a reward may come after its own.
        step: the time between two steps; None for that of the mapping.
        reward_at: "row", "next-row", or None for that of the mapping.
        output: the agent's file; None without one.
    """

    source: str
    secret_file: Path | None = None
    limit: int = BACKLOG_STEPS
    reward_delay: int = REWARD_DELAY
    step: str | None = None
    reward_at: str | None = None
    output: Path | None = None

    @property
    def settings(self) -> FeedSettings:
        """Of the agent's feed.

        Raises:
            InvalidValueError: a value is out of range.
        """
        if self.reward_at not in (None, "row", "next-row"):
            raise InvalidValueError(f"--reward-at is {self.reward_at!r}; it must be row or next-row")
        return FeedSettings(
            limit=self.limit,
            reward_delay=self.reward_delay,
            step=self.step,
            reward_at_next=None if self.reward_at is None else self.reward_at == "next-row",
        )


@dataclass(frozen=True, slots=True)
class Broker:
    """An MQTT broker and what is subscribed to there.

    Attributes:
        host: its name or address.
        port: its port.
        topic: filter, in which + and # stand for any levels.
        user: whose password is presented; empty without one.
        secure: whether over TLS.
    """

    host: str
    port: int
    topic: str
    user: str = ""
    secure: bool = False


def place_of(options: FeedOptions) -> Address | Broker | None:
    """What --feed names: an address to listen on, a broker, or None for standard input.

    Raises:
        InvalidValueError: it is none of them, or what it needs is missing.
    """
    source = options.source
    if source == STDIN:
        if options.secret_file is not None:
            raise InvalidValueError("--feed-secret-file is for HTTP and MQTT; standard input needs no secret")
        return None
    if not source.startswith(_KNOWN):
        raise InvalidValueError(f"--feed is {source!r}; {_EXPECTED}")
    if options.output is None:
        raise InvalidValueError(
            f"--feed {source} tells senders that a step is kept, so the agent needs a file: give it --output FILE"
        )
    if source.startswith("unix:"):
        return parse_host(source, 0, "--feed")
    if source.startswith("http://"):
        return _listening(source, options)
    return _broker(source)


def _listening(source: str, options: FeedOptions) -> Address:
    text = source.removeprefix("http://").rstrip("/")
    host, _, port = text.rpartition(":")
    # Port 0 is any free one, which parse_address refuses.
    found = parse_host(host, 0, "--feed") if port == "0" else parse_address(text, "--feed")
    if not found.is_local and options.secret_file is None:
        raise InvalidValueError(
            f"--feed {source} can be reached from other machines; give --feed-secret-file FILE with a token that "
            "senders present, or listen on 127.0.0.1 behind a proxy with TLS"
        )
    return found


def _broker(source: str) -> Broker:
    try:
        parts = urlsplit(source)
        host, port = parts.hostname, parts.port or _MQTT_PORTS[parts.scheme]
    except ValueError as failure:
        raise InvalidValueError(f"--feed is {source!r}: {failure}; {_EXPECTED}") from failure
    topic = unquote(source.partition("://")[2].partition("/")[2])
    if not host or not topic:
        raise InvalidValueError(f"--feed is {source!r}; name broker and topic, as mqtt://broker/plant/site-7")
    if parts.password is not None:
        raise InvalidValueError(
            "--feed has a password, which other users of this machine can read; put it into a file, and name that "
            "with --feed-secret-file"
        )
    return Broker(host, port, topic, unquote(parts.username or ""), parts.scheme == "mqtts")


def opened(options: FeedOptions, feed: Feed, report: Report) -> AbstractContextManager[str]:
    """Takes steps until the end of the context, which gives where it takes them from, in words.

    Args:
        options: of the command.
        feed: of the agent.
        report: is told of steps that are refused, and of a source that is gone.

    Raises:
        InvalidValueError: see `place_of`; or the place cannot be used.
    """
    place = place_of(options)
    if place is None:
        from cospan.cli.feeds.stdin_feed import StdinFeed

        return StdinFeed(feed, report)
    if isinstance(place, Broker):
        from cospan.cli.feeds.mqtt_feed import MqttFeed

        return MqttFeed(place, options.secret_file, feed, report)
    from cospan.cli.feeds.http_feed import HttpFeed

    return HttpFeed(place, options.secret_file, feed, report)
