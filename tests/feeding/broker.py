"""A real MQTT broker for tests: mosquitto, with a store, on a free port of the loopback."""

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 30.0
_SETTINGS = """\
listener {port} 127.0.0.1
persistence true
persistence_location {folder}/
autosave_on_changes true
autosave_interval 1
max_queued_messages 0
{access}
"""


def program() -> str:
    """The path of mosquitto; fails where it cannot be had."""
    done = subprocess.run(
        [ROOT / ".ci" / "ensure-mosquitto"], capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def broker(
    mosquitto: str, folder: Path, port: int, access: str = "allow_anonymous true"
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the broker until the end of the block; begun again in the same folder it knows its sessions."""
    settings = folder / "mosquitto.conf"
    settings.write_text(_SETTINGS.format(port=port, folder=folder, access=access), encoding="utf-8")
    if os.geteuid() == 0:
        with settings.open("a", encoding="utf-8") as file:
            file.write("user root\n")  # else it becomes a user who may not write into the folder
    with (folder / "mosquitto.log").open("ab") as log:
        process = subprocess.Popen([mosquitto, "-c", settings], stdout=log, stderr=log)
    try:
        _wait_until_it_listens(port)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_listens(port: int) -> None:
    deadline, never = time.monotonic() + SECONDS, threading.Event()
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        never.wait(0.05)
    raise AssertionError("the broker does not listen")
