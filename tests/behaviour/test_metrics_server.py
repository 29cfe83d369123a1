"""The HTTP server of metrics and health: answers, bounds, certificates."""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from runs import SECONDS
from unit.server.telemetry.test_metrics import Scraped

from cospan.server.admission.file_limits import small_connections
from cospan.server.net import acceptor
from cospan.server.net.host_header import names_of
from cospan.server.telemetry.http import MetricsServer
from cospan.wire.errors import InvalidValueError
from cospan.wire.security import authority
from cospan.wire.security.identity import ADMIN, COORDINATOR, agent_uri
from cospan.wire.security.tls import TlsFiles


@pytest.fixture
def scraped() -> Scraped:
    return Scraped("a", "b", rounds=0)


def healthy() -> str:
    return ""


Serve = Callable[..., MetricsServer]


@pytest.fixture
def serve(scraped: Scraped) -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:
        yield lambda health=healthy, **options: stack.enter_context(
            MetricsServer(scraped.registry, health, host="127.0.0.1", port=0, **options)
        )


def asked(
    server: MetricsServer, path: str, method: str = "GET", context: ssl.SSLContext | None = None, **headers: str
) -> tuple[int, str]:
    parts = urlsplit(server.address)
    host, port = str(parts.hostname), parts.port
    secured = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
    connection = secured if context is not None else http.client.HTTPConnection(host, port, timeout=SECONDS)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_metrics_are_served_in_the_text_format(scraped: Scraped, serve: Serve) -> None:
    scraped.play(0, "a", "b")
    status, text = asked(serve(), "/metrics")
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["cospan_rounds"].samples[0].value == 1
    assert all(family.documentation for family in families.values())
    assert asked(serve(), "/metrics", "HEAD") == (200, "")
    assert asked(serve(), "/elsewhere")[0] == 404
    assert asked(serve(), "/metrics", "POST")[0] == 501


def test_health_says_what_is_wrong(serve: Serve) -> None:
    assert asked(serve(), "/healthz") == (200, "ok\n")
    assert asked(serve(lambda: "the run is draining"), "/healthz") == (503, "the run is draining\n")


def test_a_port_in_use_is_refused_with_a_sentence(scraped: Scraped, serve: Serve) -> None:
    port = urlsplit(serve().address).port
    with pytest.raises(InvalidValueError, match=r"^cannot listen on 127\.0\.0\.1:.*choose another"):
        MetricsServer(CollectorRegistry(), healthy, host="127.0.0.1", port=int(port or 0))


SLOW = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: "


@pytest.mark.parametrize("saying", [b"", SLOW], ids=["silent", "slow"])
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_connections_without_a_request_keep_no_one_out(
    tmp_path: Path, serve: Serve, saying: bytes, secured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than there may be, none of them at its end: who makes a request does not wait for theirs."""
    monkeypatch.setattr(acceptor, "REQUEST_SECONDS", 10 * SECONDS)
    files = issued(tmp_path) if secured else {}
    server = serve(tls=files.get("coordinator"))
    context = trusting(files["admin"]) if secured else None
    with contextlib.ExitStack() as stack:
        for _ in range(small_connections() + 8):
            stack.enter_context(connected(server)).sendall(saying)
        assert asked(server, "/metrics", context=context)[0] == 200
        assert asked(server, "/healthz", context=context) == (200, "ok\n")


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_a_request_that_comes_byte_by_byte_is_ended_all_the_same(
    tmp_path: Path, serve: Serve, secured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TLS the handshake counts; and also a peer that has done its handshake, and says no more."""
    monkeypatch.setattr(acceptor, "REQUEST_SECONDS", 2.0)
    files = issued(tmp_path) if secured else {}
    server = serve(tls=files.get("coordinator"))
    with connected(server) as silent:
        assert silent.recv(1) == b"", "it was closed by the server"
    connection = connected(server)
    if secured:
        connection = trusting(files["agent"]).wrap_socket(connection, server_hostname="127.0.0.1")
    connection.settimeout(0.1)
    with connection:
        for _ in range(1000):
            try:
                connection.sendall(b"G")
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue  # it is open
            except OSError:
                return  # it was closed while the byte was on its way
    raise AssertionError("it was open for a thousand bytes more, and 100 s")


def connected(server: MetricsServer) -> socket.socket:
    parts = urlsplit(server.address)
    return socket.create_connection((str(parts.hostname), parts.port or 0), SECONDS)


def test_a_page_of_another_name_reads_nothing(serve: Serve) -> None:
    server = serve(names=names_of("127.0.0.1", ["fleet.example"]))
    assert asked(server, "/metrics")[0] == 200
    assert asked(server, "/metrics", Host="fleet.example")[0] == 200
    status, text = asked(server, "/metrics", Host="evil.example")
    assert (status, "not known by that name" in text) == (421, True)


def test_headers_without_an_end_are_refused(serve: Serve) -> None:
    with connected(serve()) as connection:
        connection.sendall(SLOW + 9000 * b"x")
        assert connection.recv(12) == b"HTTP/1.1 431"


def test_health_is_found_out_once_for_all_who_ask(serve: Serve) -> None:
    """An event loop that does not answer takes two seconds to be found out: not two for each who asks."""
    asked_at_once, release = threading.Barrier(4), threading.Event()
    checks = []

    def slow() -> str:
        checks.append(None)
        assert release.wait(SECONDS)
        return "the event loop has not answered"

    def ask() -> tuple[int, str]:
        asked_at_once.wait(SECONDS)
        return asked(server, "/healthz")

    server = serve(slow)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask) for _ in range(3)]
        asked_at_once.wait(SECONDS)
        assert asked(server, "/metrics")[0] == 200, "a scrape does not wait for it"
        release.set()
        assert {answer.result()[0] for answer in answers} == {503}
    assert 1 <= len(checks) <= 3


def test_with_certificates_only_observers_are_answered(tmp_path: Path, serve: Serve) -> None:
    files = issued(tmp_path)
    server = serve(tls=files["coordinator"])
    assert server.address.startswith("https://")
    assert asked(server, "/metrics", context=trusting(files["admin"]))[0] == 200
    status, text = asked(server, "/metrics", context=trusting(files["agent"]))
    assert (status, "needs a certificate for cospan:admin or cospan:observer" in text) == (403, True)
    assert asked(server, "/healthz", context=trusting(files["agent"]))[0] == 403
    stranger = ssl.create_default_context(cafile=files["admin"].authority)
    with pytest.raises((ssl.SSLError, OSError)):
        asked(server, "/metrics", context=stranger)


def issued(folder: Path) -> dict[str, TlsFiles]:
    authority.make_authority(folder, name="the fleet's", days=2)
    uris = {"coordinator": COORDINATOR, "admin": ADMIN, "agent": agent_uri("site-7")}
    for name, uri in uris.items():
        authority.issue(folder, name, uris=[uri], hosts=["127.0.0.1"], days=1)
    return {name: TlsFiles(*(folder / name / file for file in ("cert.pem", "key.pem", "ca.pem"))) for name in uris}


def trusting(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.authority)
    context.load_cert_chain(files.certificate, files.key)
    return context
