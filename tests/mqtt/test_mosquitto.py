"""A feed from a real MQTT broker: kills of agent and sender, a restart of the broker, passwords, limits.

Not among the tests of `make test`, for it needs mosquitto: `make mqtt-test` sees to it.
"""

import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from feed_values import feed_of
from feeding.broker import broker, free_port, program
from feeding.trial import Plan, Trial, judged

from cospan.cli.feeds.mqtt_feed import MqttFeed
from cospan.cli.feeds.opening import Broker
from cospan.client.feeds.feed import Feed
from cospan.wire.errors import InvalidValueError

SECONDS = 30.0
TOPIC = "plant/site-7"


@pytest.fixture(scope="session")
def mosquitto() -> str:
    return program()


def test_kills_of_agent_and_sender_lose_no_step_and_count_none_twice(mosquitto: str, tmp_path: Path) -> None:
    plan = Plan(steps=80, per_second=40.0, per_round=8, agent_killed=(0.5,), sender_killed=(0.25,))
    port = free_port()
    where = f"mqtt://127.0.0.1:{port}/plant/site-0"
    with broker(mosquitto, tmp_path, port):
        judged(Trial(plan, tmp_path, where, where).run(), plan, None)


def until(holds: Callable[[], bool]) -> None:
    deadline, never = time.monotonic() + SECONDS, threading.Event()
    while not holds():
        assert time.monotonic() < deadline
        never.wait(0.02)


class Sender:
    """Publishes steps, and waits until the broker has them."""

    def __init__(self, port: int) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, *numbers: int, qos: int = 1) -> None:
        for number in numbers:
            step = json.dumps({"sequence": number, "observation": [1.0], "reward": 1.0})
            self._client.publish(TOPIC, step, qos=qos).wait_for_publish(SECONDS)

    def end(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def serving(port: int, feed: Feed, said: list[str], **more: Any) -> MqttFeed:
    return MqttFeed(Broker("127.0.0.1", port, TOPIC, **more), None, feed, said.append)


def test_what_comes_while_the_agent_is_away_waits_at_the_broker_which_may_restart(
    mosquitto: str, tmp_path: Path
) -> None:
    port, said = free_port(), list[str]()
    feed = feed_of()
    with broker(mosquitto, tmp_path, port):
        sender = Sender(port)
        with serving(port, feed, said) as where:
            assert where == f"mqtt://127.0.0.1:{port}/{TOPIC}"
            until(lambda: _has_come(tmp_path))
            sender.send(*range(5))
            until(lambda: feed.next_sequence == 5)
        sender.send(*range(5, 50))
        sender.end()
    with broker(mosquitto, tmp_path, port), serving(port, feed, said):
        until(lambda: feed.next_sequence == 50)
    assert [each.sequence for each in feed.settled_from(0)[0]] == list(range(50))
    assert all(each.follows for each in feed.settled_from(0)[0][1:])
    assert said == []


def _has_come(folder: Path) -> bool:
    """Whether the agent has connected."""
    return "cospan-" in (folder / "mosquitto.log").read_text(encoding="utf-8")


def test_a_full_backlog_acknowledges_nothing_and_loses_nothing(mosquitto: str, tmp_path: Path) -> None:
    port, said = free_port(), list[str]()
    feed = feed_of(limit=10)
    with broker(mosquitto, tmp_path, port), serving(port, feed, said):
        until(lambda: _has_come(tmp_path))
        sender = Sender(port)
        sender.send(*range(100))
        until(lambda: any("its limit" in each for each in said))
        assert feed.next_sequence == 10
        for released in range(5, 100, 5):
            until(lambda: feed.next_sequence >= min(100, released + 5))  # noqa: B023
            feed.release(released)
        until(lambda: feed.next_sequence == 100)
        sender.end()
    assert all(each.follows for each in feed.settled_from(0)[0][1:])


def test_a_broker_that_is_gone_and_messages_that_may_be_lost_are_told_of(mosquitto: str, tmp_path: Path) -> None:
    port, said = free_port(), list[str]()
    feed = feed_of()
    with serving(port, feed, said):
        until(lambda: bool(said))
        assert "does not answer; it is tried again" in said[0]
        with broker(mosquitto, tmp_path, port):
            until(lambda: _has_come(tmp_path))
            sender = Sender(port)
            sender.send(0, qos=0)
            until(lambda: any("published with QoS 0" in each for each in said))
            sender.end()
        until(lambda: any("the broker is gone" in each for each in said))
        with broker(mosquitto, tmp_path, port):
            until(lambda: any("the broker is back" in each for each in said))


def test_passwords_are_presented_and_a_wrong_one_is_told_of(mosquitto: str, tmp_path: Path) -> None:
    passwords, secret = tmp_path / "passwords", tmp_path / "secret"
    secret.write_text("right\n", encoding="utf-8")
    tool = Path(mosquitto).parent / "mosquitto_passwd"
    if not tool.exists():
        tool = Path(mosquitto).parent / "usr/bin/mosquitto_passwd"
    subprocess.run([tool, "-b", "-c", passwords, "me", "right"], check=True, capture_output=True)
    port, said = free_port(), list[str]()
    place = Broker("127.0.0.1", port, TOPIC, "me")
    access = f"allow_anonymous false\npassword_file {passwords}"
    with broker(mosquitto, tmp_path, port, access):
        with MqttFeed(place, secret, feed_of(), said.append):
            until(lambda: _has_come(tmp_path))
        assert said == []
        secret.write_text("wrong\n", encoding="utf-8")
        with MqttFeed(place, secret, feed_of(), said.append):
            until(lambda: bool(said))
    assert "refuses the agent" in said[0]
    with pytest.raises(InvalidValueError, match="cannot read the password"):
        MqttFeed(place, tmp_path / "none", feed_of(), print)
    with pytest.raises(InvalidValueError, match="password of a user"):
        MqttFeed(Broker("127.0.0.1", port, TOPIC), secret, feed_of(), print)
