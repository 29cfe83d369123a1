"""Heads of HTTP requests: what is read, what is refused."""

import pytest

from cospan.server.net.host_header import names_of
from cospan.server.net.http_server import RefusedError, read_head

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
