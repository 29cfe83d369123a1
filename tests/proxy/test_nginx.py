"""The dashboard behind a real nginx, under a path, with nginx' own buffering on.

Not among the tests of `make test`, for it needs nginx: `make proxy-test` sees to it.
"""

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from behaviour.test_dashboard import TOKEN, asked, shown
from faults.processes import free_port
from runs import run

ROOT = Path(__file__).parents[2]
SECONDS = 10.0
KEEPS, TAKES = "", "/"
"""What follows the address in `proxy_pass`: with a slash nginx takes the path away that it has been called by."""

CONFIGURATION = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {
    listen 127.0.0.1:HERE;
    proxy_buffer_size 256k;
    proxy_buffers 4 256k;
    proxy_busy_buffers_size 512k;
    location /fleet/ { proxy_pass DASHBOARD; }
  }
}
"""


@pytest.fixture(scope="session")
def nginx() -> str:
    """Where nginx is."""
    done = subprocess.run([ROOT / ".ci" / "ensure-nginx"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextlib.contextmanager
def proxied(nginx: str, folder: Path, dashboard: str, ending: str) -> Iterator[str]:
    """The address of nginx before a dashboard."""
    port = free_port()
    there = dashboard.rstrip("/") + ending
    text = CONFIGURATION.replace("HERE", str(port)).replace("DASHBOARD", there)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            await_listening(port, process)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


def await_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
    raise AssertionError("nginx does not listen")


@pytest.mark.parametrize("ending", [KEEPS, TAKES], ids=["keeps the path", "takes the path away"])
def test_a_browser_logs_in_and_finds_every_file(nginx: str, tmp_path: Path, ending: str) -> None:
    async def tried() -> None:
        async with shown(token=TOKEN, root="/fleet") as (_, dashboard, _):
            with proxied(nginx, tmp_path, dashboard.address, ending) as address:
                await asyncio.to_thread(log_in_and_look, address)

    run(tried())


def log_in_and_look(address: str) -> None:
    assert urlsplit(asked(address, "/fleet")[1]["location"]).path == "/fleet/"
    status, headers, _ = asked(address, "/fleet/", Accept="text/html")
    assert (status, headers["location"]) == (303, "/fleet/login")
    status, _, page = asked(address, headers["location"])
    assert status == 200
    for file in re.findall(rb'(?:href|src)="([^"#:]+)"', page):
        assert asked(address, f"/fleet/{file.decode()}")[0] == 200
    assert b'action="login"' in page, "relative, so below the path"
    status, headers, _ = asked(address, "/fleet/login", "POST", f"token={TOKEN}")
    assert (status, headers["location"]) == (303, "/fleet/")
    assert "path=/fleet/;" in headers["set-cookie"].lower()
    shows = {"Cookie": headers["set-cookie"].partition(";")[0]}
    status, _, page = asked(address, headers["location"], **shows)
    files = re.findall(rb'(?:href|src)="([^"#:]+)"', page)
    assert status == 200
    assert len(files) >= 3
    for file in files:
        assert asked(address, f"/fleet/{file.decode()}", **shows)[0] == 200


@pytest.mark.parametrize("ending", [KEEPS, TAKES], ids=["keeps the path", "takes the path away"])
def test_events_come_as_they_are_sent(nginx: str, tmp_path: Path, ending: str) -> None:
    """Four a second, each far smaller than nginx' buffers: held back, none would come in time."""

    async def tried() -> None:
        async with shown(root="/fleet") as (_, dashboard, _):
            with proxied(nginx, tmp_path, dashboard.address, ending) as address:
                frames = await asyncio.to_thread(first_frames, address, 4)
                assert frames[0]["whole"]

    run(tried())


def first_frames(address: str, count: int) -> list[dict[str, Any]]:
    parts = urlsplit(address)
    frames = []
    with contextlib.closing(HTTPConnection(str(parts.hostname), parts.port, timeout=SECONDS)) as connection:
        connection.request("GET", "/fleet/events")
        for line in connection.getresponse():
            if line.startswith(b"data: "):
                frames.append(json.loads(line[6:]))
            if len(frames) == count:
                break
    return frames
