"""Addresses as people write them: one parser for all of them."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from runs import RINGS, specification

from cospan.cli.settings.layers import load_settings
from cospan.client.agent import Agent
from cospan.client.group import AgentGroup
from cospan.client.session.transport import GrpcTransport
from cospan.relay.relay import Relay
from cospan.server.coordinator import Coordinator
from cospan.wire.address import Address, is_loopback, parse_address, parse_host, parse_listening
from cospan.wire.errors import InvalidValueError

GOOD = {
    "127.0.0.1:15051": Address("127.0.0.1", 15051),
    "[::1]:15051": Address("::1", 15051),
    "[fe80::1%eth0]:1": Address("fe80::1%eth0", 1),
    "coordinator:65535": Address("coordinator", 65535),
    "fleet_a.example.org.:7": Address("fleet_a.example.org.", 7),
    "unix:/run/cospan.sock": Address("/run/cospan.sock", 0, is_unix=True),
    "unix:///run/cospan.sock": Address("/run/cospan.sock", 0, is_unix=True),
    "unix:here.sock": Address("here.sock", 0, is_unix=True),
}
BAD = {
    "127.0.0.1:116660": "its port must be 0 to 65535",
    "127.0.0.1:99999999999999999999": "its port must be 0 to 65535",
    "127.0.0.1:0": "its port must be 1 to 65535",
    "127.0.0.1:-1": "its port must be 0 to 65535",
    "127.0.0.1:٣": "its port must be 0 to 65535",
    "127.0.0.1:": "its port must be 0 to 65535",
    "127.0.0.1": "it must be HOST:PORT, as 127.0.0.1:15051, or unix:PATH",
    ":15051": "it must be HOST:PORT",
    "15051": "it must be HOST:PORT",
    "": "it must be HOST:PORT",
    "http://127.0.0.1:15051": "that is a URL; write HOST:PORT, without http://, as 127.0.0.1:15051",
    "https://fleet.example.org:15051/": "without https://, as fleet.example.org:15051",
    "dns:///fleet:15051": "that is a URL; write HOST:PORT, without dns://, as 127.0.0.1:15051",
    "::1:15051": "an IPv6 address is written in brackets, as [::1]:15051",
    "[127.0.0.1]:1": "an IPv6 address is written as [::1]:15051",
    "[::1]": "an IPv6 address is written as [::1]:15051",
    "[::1:15051": "an IPv6 address is written as [::1]:15051",
    "300.1.2.3:1": "300.1.2.3 is no IPv4 address",
    "127.1:1": "127.1 is no IPv4 address",
    "a b:1": "is neither a host name nor an IP address",
    "a/b:1": "is neither a host name nor an IP address",
    "a\n:1": "is neither a host name nor an IP address",
    "unix:": "a path of 1 to 107 bytes (here 0)",
    "unix:/" + 107 * "x": "a path of 1 to 107 bytes (here 108)",
}


@pytest.mark.parametrize("text", GOOD)
def test_an_address_is_taken_apart_and_put_together(text: str) -> None:
    assert parse_address(text, "coordinator") == GOOD[text]
    assert parse_address(str(GOOD[text]), "coordinator") == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_address_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(BAD[text])) as refused:
        parse_address(text, "coordinator")
    assert str(refused.value).startswith(f"coordinator is {text!r}; ")


@pytest.mark.parametrize(
    ("host", "written"),
    [
        ("::1", "[::1]:5"),
        ("[::1]", "[::1]:5"),
        ("::", "[::]:5"),
        ("localhost", "localhost:5"),
        ("0.0.0.0", "0.0.0.0:5"),
        ("unix:/a", "unix:/a"),
    ],
)
def test_a_host_to_listen_on(host: str, written: str) -> None:
    assert str(parse_host(host, 5)) == written
    assert str(Coordinator(specification(), host=host, port=5, insecure=True).address) == written


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1:5000", "say 127.0.0.1 here, and the port with --port 5000"),
        ("http://127.0.0.1", "that is a URL"),
        ("", "neither a host name nor"),
        ("1.2.3", "no IPv4 address"),
    ],
)
def test_what_is_no_host(host: str, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        parse_host(host, 5)


def test_a_port_alone_is_one_of_the_loopback_where_something_is_served() -> None:
    assert parse_listening("9464", "metrics") == Address("127.0.0.1", 9464)
    assert parse_listening("[::]:0", "metrics") == Address("::", 0)
    for text in ("65536", "unix:/a", "host"):
        with pytest.raises(InvalidValueError, match=f"metrics is '{text}'"):
            parse_listening(text, "metrics")


def test_loopback() -> None:
    local = ("127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST.", "::1", "[::1]", "::ffff:127.0.0.1", "unix:/a")
    assert all(map(is_loopback, local))
    far = ("0.0.0.0", "192.168.0.1", "::", "example.org", "localhost.example.org", "::ffff:10.0.0.1")
    assert not any(map(is_loopback, far))


@pytest.mark.parametrize("key", ["coordinator", "upstream", "metrics", "dashboard"])
def test_every_setting_that_is_an_address_goes_through_the_same_parser(key: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{key} is '127.0.0.1:116660' in --{key}; its port must be 0 to"):
        load_settings({key: "127.0.0.1:116660"}, None)
    with pytest.raises(InvalidValueError, match=f"^{key} is 'http://a:1' in --{key}; that is a URL; write"):
        load_settings({key: "http://a:1"}, None)
    with pytest.raises(InvalidValueError, match=r"^host is 'a b' in --host; 'a b' is neither"):
        load_settings({"host": "a b"}, None)


@pytest.mark.parametrize(
    "make",
    [
        lambda text: Agent(RINGS, index=0, coordinator=text),
        lambda text: AgentGroup(RINGS, [0, 1], coordinator=text),
        Relay,
        GrpcTransport,
    ],
)
def test_python_is_told_at_once(make: Callable[[str], Any]) -> None:
    with pytest.raises(InvalidValueError, match=r"coordinator is 'http://127\.0\.0\.1:1'; that is a URL"):
        make("http://127.0.0.1:1")
    with pytest.raises(InvalidValueError, match="port is 65536"):
        Coordinator(specification(), port=65536)
