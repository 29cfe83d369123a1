"""The Host header of HTTP requests."""

import pytest

from cospan.server.net.host_header import host_part


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("127.0.0.1:8080", "127.0.0.1"),
        ("LocalHost", "localhost"),
        ("[::1]:80", "::1"),
        ("a.example:1", "a.example"),
    ],
)
def test_a_host_header_is_read_as_browsers_write_it(header: str, name: str) -> None:
    assert host_part(header) == name
