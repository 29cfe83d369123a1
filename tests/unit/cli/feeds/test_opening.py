"""--feed: what it may name, and what each way needs."""

from pathlib import Path

import pytest

from cospan.cli.feeds.opening import Broker, FeedOptions, place_of
from cospan.wire.address import Address
from cospan.wire.errors import InvalidValueError

OUTPUT = Path("site-7.npz")


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("-", None),
        ("http://127.0.0.1:8090", Address("127.0.0.1", 8090)),
        ("http://127.0.0.1:8090/", Address("127.0.0.1", 8090)),
        ("http://[::1]:8090", Address("::1", 8090)),
        ("http://localhost:0", Address("localhost", 0)),
        ("unix:/run/feed.sock", Address("/run/feed.sock", 0, is_unix=True)),
        ("mqtt://broker/plant/site-7", Broker("broker", 1883, "plant/site-7")),
        ("mqtts://me@broker:9999/plant/%2B/site-7", Broker("broker", 9999, "plant/+/site-7", "me", secure=True)),
        ("mqtt://broker/plant/#", Broker("broker", 1883, "plant/#")),
    ],
)
def test_a_feed_is_named(source: str, place: Address | Broker | None) -> None:
    assert place_of(FeedOptions(source, output=OUTPUT)) == place


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("tcp://127.0.0.1:1", "it must be - .standard input., http://"),
        ("8090", "it must be -"),
        ("http://127.0.0.1", "HOST:PORT"),
        ("http://0.0.0.0:80", "can be reached from other machines; give --feed-secret-file"),
        ("mqtt://broker", "name broker and topic"),
        ("mqtt:///topic", "name broker and topic"),
        ("mqtt://broker:x/topic", "Port could not be cast"),
        ("mqtt://me:secret@broker/topic", "other users of this machine can read"),
    ],
)
def test_what_is_no_feed_is_refused(source: str, match: str) -> None:
    with pytest.raises(InvalidValueError, match=match):
        place_of(FeedOptions(source, output=OUTPUT))


def test_what_acknowledges_steps_needs_a_file_and_standard_input_has_no_secret() -> None:
    with pytest.raises(InvalidValueError, match="give it --output FILE"):
        place_of(FeedOptions("http://127.0.0.1:80"))
    with pytest.raises(InvalidValueError, match="standard input needs no secret"):
        place_of(FeedOptions("-", secret_file=Path("token")))
    with pytest.raises(InvalidValueError, match="must be row or next-row"):
        _ = FeedOptions("-", reward_at="next").settings
    assert FeedOptions("-", reward_at="next-row").settings.reward_at_next is True
    assert FeedOptions("-").settings.reward_at_next is None
