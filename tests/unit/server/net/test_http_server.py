"""Who has a place at a full listener, how descriptors are shared, what a request may be, and what is logged."""

import asyncio
import errno
import json
import logging
import socket
from typing import Any

import pytest

from cospan.cli.output.log_lines import JsonFormatter, OnceASecond
from cospan.dashboard.auth import DashboardAuth
from cospan.server.admission.file_limits import Shares, shares
from cospan.server.admission.peer_limits import most_connections
from cospan.server.net import acceptor as accepting
from cospan.server.net.acceptor import Acceptor
from cospan.server.net.connection_slots import SlotHolder, admission
from cospan.server.net.host_header import names_of
from cospan.server.net.http_server import RefusedError, read_head
from cospan.server.net.log_throttle import LogThrottle

# Places -----------------------------------------------------------------------------------------------------------


def test_a_newcomer_takes_the_place_of_who_has_waited_longest() -> None:
    guests = [SlotHolder("a", since=3.0), SlotHolder("a", since=1.0), SlotHolder("a", since=0.0, waiting=False)]
    assert admission(guests, "a", most=4, most_of_peer=4).leaves is None
    found = admission(guests, "a", most=3, most_of_peer=3)
    assert (found.admitted, found.leaves) == (True, guests[1])


def test_who_is_answered_keeps_its_place() -> None:
    guests = [SlotHolder("a", since=0.0, waiting=False) for _ in range(3)]
    assert not admission(guests, "b", most=3, most_of_peer=3).admitted


def test_a_host_that_takes_many_places_loses_its_own_first() -> None:
    patient, *crowd = [
        SlotHolder("b", since=0.0),
        *(SlotHolder("a", since=float(moment)) for moment in range(5, 8)),
    ]
    assert admission([patient, *crowd], "a", most=4, most_of_peer=4).leaves is crowd[0]
    assert admission([patient, *crowd], "c", most=4, most_of_peer=4).leaves is crowd[0]
    assert admission([patient, *crowd], "a", most=9, most_of_peer=3).leaves is crowd[0], "it has its share"


# Descriptors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", [135, 256, 600, 1024, 20_000])
@pytest.mark.parametrize("agents", [1, 8, 5000])
def test_all_connections_together_leave_room_for_other_files(files: int, agents: int) -> None:
    found = shares(files, agents)
    assert found.grpc + found.dashboard + found.small + 128 <= files
    assert min(found.grpc, found.dashboard, found.small) >= 1


def test_without_a_limit_everyone_has_what_is_wanted() -> None:
    assert shares(None, 8) == shares(1_000_000, 8) == Shares(most_connections(8), 128, 32)


# Requests ---------------------------------------------------------------------------------------------------------


NAMES = names_of("127.0.0.1", ["Fleet.example"])


def test_the_host_of_a_request_must_be_known() -> None:
    for host in ("127.0.0.1:9464", "LOCALHOST", "[::1]:80", "fleet.example:1"):
        assert read_head(f"GET /metrics?x HTTP/1.1\r\nHost: {host}".encode(), NAMES).path == "/metrics"
    for host in ("evil.example", "127.0.0.1.evil.example", "", "0.0.0.0"):
        with pytest.raises(RefusedError) as refused:
            read_head(f"GET /metrics HTTP/1.1\r\nhost: {host}".encode(), NAMES)
        assert refused.value.answer.status == 421
    assert read_head(b"GET /healthz HTTP/1.0", NAMES).path == "/healthz", "no browser speaks so"
    assert read_head(b"GET / HTTP/1.1\r\nHost: coordinator", None).path == "/", "any name will do"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example", 400),
        (b"GET /", 400),
        (b"", 400),
        (bytes(range(256)), 400),
        (b"PRI * HTTP/2.0", 400),
        (b"DELETE / HTTP/1.1\r\nHost: localhost", 501),
    ],
)
def test_what_is_no_request_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(RefusedError) as refused:
        read_head(head, NAMES)
    assert refused.value.answer.status == status


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("/fleet/", "/"),
        ("/fleet/events", "/events"),
        ("/events", "/events"),
        ("/fleet", None),
        ("/fleets", "/fleets"),
    ],
)
def test_a_path_is_the_same_with_and_without_the_proxys(path: str, below: str | None) -> None:
    assert DashboardAuth(frozenset(), root="/fleet").path_below_root(path) == below
    assert DashboardAuth(frozenset()).path_below_root(path) == path


# The log ----------------------------------------------------------------------------------------------------------


def test_one_kind_is_said_once_a_second_and_the_rest_counted() -> None:
    now = 0.0
    sparing = LogThrottle(clock=lambda: now)
    assert [sparing.due("a"), sparing.due("a"), sparing.due("a"), sparing.due("b")] == [0, None, None, 0]
    now = 1.0
    assert [sparing.due("a"), sparing.due("a")] == [2, None]
    for number in range(2000):
        sparing.due(number)
    assert len(sparing._kinds) <= 512


def record(name: str, message: str, *arguments: Any, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, message, arguments, None)


def test_a_flood_of_errors_is_a_line_a_second_in_the_log() -> None:
    limit, now = OnceASecond(), 0.0
    limit._sparing = LogThrottle(clock=lambda: now)
    flood = [record("asyncio", f"socket.accept() out of system resource\nsocket: {number}") for number in range(99)]
    assert sum(map(limit.filter, flood)) == 1
    now = 1.0
    assert limit.filter(flood[0])
    assert json.loads(JsonFormatter().format(flood[0]))["suppressed"] == 98


def test_what_names_different_agents_is_not_held_back() -> None:
    limit = OnceASecond()
    assert all(limit.filter(record("cospan.client", "%s has failed", f"site-{number}")) for number in range(9))
    assert all(limit.filter(record("cospan", "joined", level=logging.INFO)) for _ in range(9))


class NoFilesLeft(socket.socket):
    """A listening socket of a process that may open no further file."""

    tried = 0

    def accept(self) -> Any:
        self.tried += 1
        raise OSError(errno.EMFILE, "Too many open files")


def test_where_no_file_is_left_accepting_pauses_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "_NO_FILES_SECONDS", 0.02)

    async def tried() -> int:
        with NoFilesLeft() as listening, pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await Acceptor(listening, lambda _: asyncio.Protocol(), name="test", most=1).accept()
        return listening.tried

    assert 2 <= asyncio.run(tried()) <= 11
    assert [one.getMessage() for one in caplog.records] == [
        "test: no connection can be accepted: Too many open files; see ulimit -n"
    ]
