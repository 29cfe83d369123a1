"""Agents whose steps come from other processes: standard input, HTTP, a Unix socket; kills, refusals, limits."""

import contextlib
import csv
import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from behaviour.command import environment, in_this_process, started
from feed_values import feed_of
from feeding.sender import UnixConnection
from feeding.trial import Plan, Trial, judged
from stations import write_stations

from cospan.cli.feeds.http_feed import HttpFeed
from cospan.client.feeds.feed import Feed
from cospan.client.files.result_file import load_result
from cospan.server.net import acceptor
from cospan.simulation import Fleet
from cospan.wire.address import Address
from cospan.wire.errors import InvalidValueError

SECONDS = 120.0
LINES = "application/x-ndjson"


def test_kills_of_agent_and_sender_lose_no_step_and_count_none_twice(tmp_path: Path) -> None:
    plan = Plan(steps=80, per_second=40.0, per_round=8, agent_killed=(0.5,), sender_killed=(0.25,))
    where = f"unix:{tmp_path}/feed.sock"
    judged(Trial(plan, tmp_path, where, where).run(), plan, None)


def test_rows_on_standard_input_give_the_bits_of_their_log(tmp_path: Path) -> None:
    (station,) = write_stations(tmp_path, stations=1, days=10)
    with (tmp_path / "station-00.csv").open(encoding="utf-8") as file:
        lines = [json.dumps(row) for row in csv.DictReader(file)]
    lines.insert(50, '{"stamp": "2023-01-01 00:00:00", "hour": 1}')
    expected = Fleet.from_logs(tmp_path, tmp_path / "fleet.toml", seed=1).run()
    with started(
        *(
            "coordinator",
            "--workload",
            "log:fleet.toml",
            "--agents",
            "1",
            "--rounds",
            str(expected.specification.rounds),
        ),
        *("--port", "0", "--seed", "1", "--run-folder", "run", "--json"),
        cwd=tmp_path,
    ) as coordinator:
        assert coordinator.stdout is not None
        events = (json.loads(line) for line in coordinator.stdout)
        address = next(event["address"] for event in events if event["event"] == "listening")
        agent = subprocess.run(
            [
                *(sys.executable, "-m", "cospan.cli.main", "agent", "--mapping", "fleet.toml", "--feed", "-"),
                *("--id", "0", "--coordinator", address, "--output", "site-0.npz"),
            ],
            cwd=tmp_path,
            input="\n".join(lines),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
            env=environment(),
        )
        for _ in events:
            pass
        assert coordinator.wait(SECONDS) == 0
    assert "site-0: takes steps from standard input" in agent.stdout
    assert "line 51 of standard input: step 464592 of site-0 is refused" in agent.stderr
    assert load_result(tmp_path / "site-0.npz").whole("steps") == len(station.transitions)
    document = json.loads((tmp_path / "run/result.json").read_text(encoding="utf-8"))
    assert document["basis_sha256"] == expected.basis_sha256


# HTTP -----------------------------------------------------------------------------------------------------------

Serve = Callable[..., tuple[Feed, str, list[str]]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Gives a feed that is served, where it is, and what is reported."""
    with contextlib.ExitStack() as stack:

        def served(address: str = "127.0.0.1", token: str = "", **settings: Any) -> tuple[Feed, str, list[str]]:
            feed, said = feed_of(**settings), list[str]()
            file = tmp_path / "token" if token else None
            if file is not None:
                file.write_text(f"{token}\n", encoding="utf-8")
            is_unix = address.startswith("/")
            place = Address(address, 0, is_unix=is_unix)
            return feed, stack.enter_context(HttpFeed(place, file, feed, said.append)), said

        yield served


def asked(
    where: str, body: bytes | None = None, path: str = "/steps", kind: str = LINES, **headers: str
) -> tuple[int, Any]:
    """Status and answer of a POST; of a GET without a body."""
    to: http.client.HTTPConnection
    if where.startswith("unix:"):
        to = UnixConnection(where.removeprefix("unix:"))
    else:
        parts = urlsplit(where)
        to = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=SECONDS)
    with contextlib.closing(to):
        if body is None:
            to.request("GET", path, headers=headers)
        else:
            to.request("POST", path, body, {"Content-Type": kind, **headers})
        answer = to.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else text.decode()


def steps(*numbers: int) -> bytes:
    lines = (json.dumps({"sequence": each, "observation": [1.0], "reward": 1}) for each in numbers)
    return "\n".join(lines).encode()


@pytest.mark.parametrize("address", ["127.0.0.1", "/feed.sock"])
def test_steps_over_http_are_answered_when_they_are_kept(serve: Serve, tmp_path: Path, address: str) -> None:
    feed, where, said = serve(f"{tmp_path}{address}" if address.startswith("/") else address)
    assert asked(where, steps(*range(100))) == (200, {"accepted": 100, "repeated": 0, "newest": 99})
    assert asked(where, steps(*range(90, 101))) == (200, {"accepted": 1, "repeated": 10, "newest": 100})
    assert asked(where, b'{"sequence": 101, "observation": [2]}', kind="application/json; charset=utf-8")[0] == 200
    status, found = asked(where, None, "/")
    assert (status, found["newest"], found["held"], found["agent"]) == (200, 101, 102, "site-7")
    status, found = asked(where, steps(102) + b'\n{"sequence": 50, "observation": [7.0]}')
    assert (status, found["accepted"], found["errors"][0]["line"]) == (422, 1, 2)
    assert "accepted before with another observation" in found["errors"][0]["error"]
    assert said[0].startswith("line 2 of a request: step 50")
    if where.startswith("unix:"):
        assert (tmp_path / "feed.sock").stat().st_mode & 0o077 == 0, "other users cannot connect"
    feed.close()
    assert asked(where, steps(103)) == (410, {"error": "site-7 has ended, and takes no more steps; start it again"})


def test_a_full_backlog_and_a_full_disk_ask_the_sender_to_come_again(serve: Serve) -> None:
    feed, where, _said = serve(limit=3)
    status, found = asked(where, steps(0, 1, 2, 3, 4))
    assert (status, found["accepted"], found["newest"]) == (503, 3, 2)
    assert "its limit; step 3 is not accepted" in found["full"]
    feed.release(2)
    assert asked(where, steps(0, 1, 2, 3, 4))[0] == 200
    feed._backlog._database.execute("PRAGMA max_page_count=1")
    feed.release(4)
    status, found = asked(where, json.dumps({"sequence": 5, "observation": [1.0] * 1}).encode())
    assert status in (200, 507)


def test_what_is_no_request_with_steps_is_refused(serve: Serve) -> None:
    feed, where, _ = serve()
    assert asked(where, steps(0), "/other")[0] == 404
    assert asked(where, None, "/steps")[0] == 404
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert asked(where, steps(0), kind=kind)[0] == 415, "a form of any page can be sent so"
    assert asked(where, steps(0), Host="evil.example")[0] == 421
    status, text = asked(where, b" " * 1_100_000)
    assert (status, "may have 1,048,576 bytes" in text) == (413, True)
    assert feed.status().newest is None


def test_the_length_of_a_body_must_be_told(serve: Serve) -> None:
    _, where, _ = serve()
    parts = urlsplit(where)
    head = "POST /steps HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for more, status in (
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        ("\r\n", 411),
        ("Content-Length: -1\r\n\r\n", 400),
        (f"Content-Length: {'9' * 100}\r\n\r\n", 413),
        ("Content-Length: 2\r\nExpect: 100-continue\r\n\r\n", 100),
    ):
        with socket.create_connection((str(parts.hostname), int(parts.port or 0)), SECONDS) as to:
            to.sendall((head + more).encode())
            assert to.recv(100).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_slow_body_is_awaited_and_one_that_never_comes_is_cut_off(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "REQUEST_SECONDS", 0.5)
    feed, where, _ = serve()
    parts, body = urlsplit(where), steps(0, 1)
    head = (
        f"POST /steps HTTP/1.1\r\nHost: localhost\r\nContent-Type: {LINES}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), SECONDS) as to:
        to.sendall(head.encode() + body[:10])
        to.sendall(body[10:])
        assert to.recv(1000).startswith(b"HTTP/1.1 200 OK")
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), SECONDS) as to:
        to.sendall(head.encode() + body[:10])
        assert to.recv(1000) == b""
    assert feed.next_sequence == 2


def test_a_token_is_asked_for_and_compared(serve: Serve, tmp_path: Path) -> None:
    token = "0123456789abcdef"
    _, where, _ = serve(token=token)
    assert asked(where, steps(0))[0] == 401
    assert asked(where, steps(0), Authorization="Bearer 0123456789abcdeX")[0] == 401
    assert asked(where, steps(0), Authorization=f"Bearer {token}")[0] == 200
    assert asked(where, steps(1), Authorization=f"Bearer {token}", Host="plant.example")[0] == 200
    (tmp_path / "short").write_text("short", encoding="utf-8")
    with pytest.raises(InvalidValueError, match="holds no token"):
        HttpFeed(Address("127.0.0.1", 0), tmp_path / "short", feed_of(), print)


def test_places_that_cannot_be_listened_on_are_named(serve: Serve, tmp_path: Path) -> None:
    _, where, _ = serve()
    with pytest.raises(InvalidValueError, match=r"cannot listen on .*--feed"):
        HttpFeed(Address("127.0.0.1", urlsplit(where).port or 0), None, feed_of(), print)
    (tmp_path / "file").write_text("no socket", encoding="utf-8")
    with pytest.raises(InvalidValueError, match="a file is there that is no socket"):
        HttpFeed(Address(f"{tmp_path}/file", 0, is_unix=True), None, feed_of(), print)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("queues", "--id", "0", "--feed", "http://127.0.0.1:0"), "give it --output FILE"),
        (("queues", "--feed", "-"), "give its index"),
        (("--feed", "-", "--id", "0"), "give --mapping with --log or --feed"),
        (("--feed", "-", "--id", "0", "--log", "a.csv", "--mapping", "m.toml"), "leave out one of them"),
        (("queues", "--ids", "0-3", "--feed", "-"), "start an agent for each of them"),
        (("queues", "--id", "0", "--feed", "tcp:8080"), "--feed is 'tcp:8080'; it must be -"),
        (("queues", "--id", "0", "--feed", "-", "--feed-step", "soon"), "the time step of the feed"),
    ],
)
def test_options_that_do_not_go_together_say_so(
    capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert in_this_process("agent", *arguments) == 2
    assert said in capfd.readouterr().err
