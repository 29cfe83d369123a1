"""A control loop in a process of its own, which sends its steps as JSON, each at its time.

    python -m feeding.sender TARGET SEED STEPS UNTIL PER_SECOND MEMORY

It takes the steps of site 0 of the queues, and ends before step UNTIL. TARGET is http://HOST:PORT, unix:PATH, or
mqtt://HOST:PORT/TOPIC. What was not acknowledged is sent again; MEMORY is its own file, by which it continues after
it was killed.
"""

import contextlib
import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from control_loop import loop

RETRY_SECONDS = 0.1
AGAIN = 3
"""Acknowledged steps that a restarted sender sends once more."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10.0)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10.0)
        self.sock.connect(self._path)


def connection(target: str) -> http.client.HTTPConnection:
    if target.startswith("unix:"):
        return UnixConnection(target.removeprefix("unix:"))
    parts = urlsplit(target)
    return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10.0)


def post(target: str, document: dict[str, Any]) -> dict[str, Any] | None:
    """The answer to a step; None where there was none, or it is to be sent again."""
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection(target)) as to:
        to.request("POST", "/steps", json.dumps(document), {"Content-Type": "application/json"})
        answer = to.getresponse()
        found: dict[str, Any] = json.loads(answer.read())
        if answer.status in (200, 422):
            return found
    return None


def over_http(target: str) -> Callable[[dict[str, Any]], None]:
    never = threading.Event()

    def send(document: dict[str, Any]) -> None:
        while (answer := post(target, document)) is None:
            never.wait(RETRY_SECONDS)
        assert "errors" not in answer, answer

    return send


def over_mqtt(target: str) -> Callable[[dict[str, Any]], None]:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    parts = urlsplit(target)
    client, connected = Client(CallbackAPIVersion.VERSION2), threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect_async(str(parts.hostname), parts.port or 1883)
    client.loop_start()
    connected.wait(30.0)

    def send(document: dict[str, Any]) -> None:
        client.publish(parts.path.lstrip("/"), json.dumps(document), qos=1).wait_for_publish(30.0)

    return send


def main(target: str, numbers: list[int], per_second: float, memory: Path) -> None:
    """Sends step n at n / per_second after the first sender's begin."""
    seed, steps, until = numbers
    done, began = -1, time.time()
    if memory.exists():
        done, began = json.loads(memory.read_text(encoding="utf-8"))
    send = over_mqtt(target) if target.startswith("mqtt:") else over_http(target)
    never = threading.Event()
    for number, (observation, reward) in enumerate(loop("queues", 0, seed, steps)):
        if number >= until:
            break
        if number <= done - AGAIN:
            continue
        never.wait(max(0.0, began + number / per_second - time.time()))
        send({"sequence": number, "observation": observation.tolist(), "reward": reward})
        whole = memory.with_suffix(".new")
        whole.write_text(json.dumps([max(done, number), began]), encoding="utf-8")
        whole.replace(memory)


if __name__ == "__main__":
    main(sys.argv[1], [int(each) for each in sys.argv[2:5]], float(sys.argv[5]), Path(sys.argv[6]))
