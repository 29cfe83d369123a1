"""Steps from an MQTT broker: QoS 1, a persistent session, and an acknowledgement when a step is durable.

So the broker keeps what comes while the agent is away, and sends again what was not acknowledged; what it sends
twice counts once, by its sequence. While the backlog is full nothing is acknowledged, and the broker waits.
"""

import contextlib
import queue
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cospan.cli.feeds.opening import Broker
from cospan.cli.feeds.refusals import RETRY_SECONDS, Refusals
from cospan.cli.settings.extras import require
from cospan.client.feeds.feed import Feed
from cospan.wire.errors import InvalidValueError
from cospan.wire.files.safe_files import read_text

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

_QOS = 1
_AT_ONCE = 1000
_QUEUED = 1000
"""Messages between the network's thread and the backlog."""
_STOP_SECONDS = 5.0
_LONGEST_DELAY = 30
_KEEPALIVE_SECONDS = 30


class MqttFeed:
    """Subscribes until the end of the context, and connects again after an outage."""

    def __init__(self, broker: Broker, secret_file: Path | None, feed: Feed, report: Callable[[str], None]) -> None:
        """Nothing is connected yet.

        Args:
            broker: and what is subscribed to there.
            secret_file: with the password of its user; None without one.
            feed: of the agent.
            report: is told of steps that are refused, and of a broker that is gone.

        Raises:
            InvalidValueError: paho-mqtt is not installed, or the password cannot be read.
        """
        require("--feed mqtt://…", ["paho.mqtt"], "mqtt")
        from paho.mqtt.client import Client, MQTTv311
        from paho.mqtt.enums import CallbackAPIVersion

        self._broker, self._feed = broker, feed
        self._report, self._refusals = report, Refusals(report, feed.name)
        self._messages: queue.Queue[MQTTMessage | None] = queue.Queue(_QUEUED)
        self._stopped = threading.Event()
        self._was_connected = False
        self._told_qos = False
        self._worker = threading.Thread(target=self._run, name="feed-mqtt", daemon=True)
        self._client: Client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=_client_id(broker, feed.name),
            clean_session=False,
            protocol=MQTTv311,
            manual_ack=True,
        )
        self._client.reconnect_delay_set(1, _LONGEST_DELAY)
        if broker.user:
            self._client.username_pw_set(broker.user, None if secret_file is None else _password(secret_file))
        elif secret_file is not None:
            raise InvalidValueError(
                "--feed-secret-file has the password of a user; name it as mqtt://USER@HOST/TOPIC"
            )
        if broker.secure:
            self._client.tls_set()
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_connect_fail = self._unreachable
        self._client.on_message = self._arrived

    @property
    def _where(self) -> str:
        scheme = "mqtts" if self._broker.secure else "mqtt"
        return f"{scheme}://{self._broker.host}:{self._broker.port}/{self._broker.topic}"

    def __enter__(self) -> str:
        self._worker.start()
        self._client.connect_async(self._broker.host, self._broker.port, keepalive=_KEEPALIVE_SECONDS)
        self._client.loop_start()
        return self._where

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._feed.wake()
        self._client.disconnect()
        self._client.loop_stop()
        with contextlib.suppress(queue.Full):
            self._messages.put_nowait(None)
        self._worker.join(_STOP_SECONDS)
        self._refusals.end()

    # Called by the thread of the network -------------------------------------------------------------------------

    def _connected(self, client: "Client", _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refusals.say(
                f"{self._feed.name}: the broker of {self._where} refuses the agent: {reason}; see the user of"
                " --feed and --feed-secret-file"
            )
            return
        if self._was_connected:
            self._report(f"{self._feed.name}: the broker is back")
        self._was_connected = True
        client.subscribe(self._broker.topic, _QOS)

    def _disconnected(self, _client: "Client", _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not self._stopped.is_set() and self._was_connected:
            self._refusals.say(f"{self._feed.name}: the broker is gone ({reason}); it is tried again")

    def _unreachable(self, _client: "Client", _data: Any) -> None:
        if not self._stopped.is_set():
            self._refusals.say(f"{self._feed.name}: the broker of {self._where} does not answer; it is tried again")

    def _arrived(self, _client: "Client", _data: Any, message: "MQTTMessage") -> None:
        # A message that was dropped would come again after later ones. So the network waits here; a broker that
        # takes the agent for dead meanwhile sends everything again that was not acknowledged, in order.
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._messages.put(message, timeout=RETRY_SECONDS)
                return

    # The worker --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped.is_set():
            batch = [self._messages.get()]
            while len(batch) < _AT_ONCE:
                try:
                    batch.append(self._messages.get_nowait())
                except queue.Empty:
                    break
            messages = [each for each in batch if each is not None]
            lines = [line for each in messages for line in bytes(each.payload).split(b"\n")]
            if self._refusals.tell(self._feed, lines, f"a message of {self._broker.topic}", self._stopped):
                for each in messages:
                    self._acknowledge(each)

    def _acknowledge(self, message: "MQTTMessage") -> None:
        if message.qos:
            self._client.ack(message.mid, message.qos)
        elif not self._told_qos:
            self._told_qos = True
            self._report(
                f"{self._feed.name}: steps are published with QoS 0, so those of a time when the agent is away are "
                "lost; publish them with QoS 1"
            )


def _client_id(broker: Broker, name: str) -> str:
    """The session's name: the same after a restart, another one for another agent or topic; 23 letters at most."""
    return f"cospan-{sha256(f'{name} {broker.topic}'.encode()).hexdigest()[:16]}"


def _password(path: Path) -> str:
    try:
        return read_text(path).strip()
    except (OSError, UnicodeDecodeError) as failure:
        raise InvalidValueError(f"cannot read the password of --feed-secret-file {path}: {failure}") from failure
