"""Proxies that the environment names: for whom gRPC may ask them, and that they are named where nothing answers."""

import asyncio
import re
import socket
from collections.abc import Mapping

import pytest
from runs import run, specification

from cospan.cli.diagnostics.findings import Grade
from cospan.cli.diagnostics.network import of_proxy
from cospan.client.session import connection, transport
from cospan.client.session.proxy import are_private, is_exempt, named, proxy_of
from cospan.client.session.transport import GrpcTransport
from cospan.wire.errors import CoordinatorUnavailableError

NOWHERE = "http://127.0.0.1:9"
FAR = "203.0.113.7:15051"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("environment", "variable", "is_read"),
    [
        ({"http_proxy": NOWHERE}, "http_proxy", True),
        ({"https_proxy": NOWHERE, "http_proxy": "http://b"}, "https_proxy", True),
        ({"grpc_proxy": NOWHERE, "https_proxy": "http://b"}, "grpc_proxy", True),
        ({"HTTPS_PROXY": NOWHERE}, "HTTPS_PROXY", False),
        ({"HTTPS_PROXY": "http://b", "http_proxy": NOWHERE}, "http_proxy", True),
    ],
)
def test_the_variable_that_counts(environment: dict[str, str], variable: str, is_read: bool) -> None:
    proxy = run(proxy_of(FAR, environment))
    assert proxy is not None
    assert (proxy.variable, proxy.value, proxy.is_read) == (variable, NOWHERE, is_read)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://me:secret@proxy:3128", "http://proxy:3128"),
        ("http://me:se@cr/et@proxy:3128/", "http://proxy:3128/"),
        ("me:secret@proxy:3128", "proxy:3128"),
        ("http://proxy:3128", "http://proxy:3128"),
    ],
)
def test_a_password_in_a_proxy_is_not_shown(value: str, shown: str) -> None:
    proxy = named({"http_proxy": value})
    assert proxy is not None
    assert proxy.value == shown


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:1",
        "[::1]:1",
        "localhost:1",
        "10.1.2.3:1",
        "192.168.0.4:1",
        "[fd00::1]:1",
        "[fe80::1]:1",
        "unix:/a",
    ],
)
def test_loopback_and_private_addresses_are_reached_directly(address: str) -> None:
    assert run(proxy_of(address, {"http_proxy": NOWHERE})) is None


def test_a_name_is_reached_directly_where_all_of_its_addresses_are_private(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"inner.test": ["10.0.0.7"], "both.test": ["10.0.0.7", "203.0.113.7"]}

    def looked_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in known[host]]

    async def both() -> None:
        loop = asyncio.get_running_loop()

        async def getaddrinfo(host: str, port: int, **named: object) -> list[tuple[object, ...]]:
            return looked_up(host, port, **named)

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        environment = {"http_proxy": NOWHERE}
        assert await proxy_of("inner.test:1", environment) is None
        assert await proxy_of("both.test:1", environment) is not None
        assert await proxy_of("known-to-the-proxy.test:1", environment) is not None

    run(both())
    assert not are_private([])


@pytest.mark.parametrize(
    ("environment", "exempt"),
    [
        ({"no_proxy": "example.org"}, True),
        ({"NO_PROXY": "a, .example.org"}, True),
        ({"no_proxy": "*.example.org"}, True),
        ({"no_grpc_proxy": "*"}, True),
        ({"no_proxy": "ample.org"}, False),
        ({"no_proxy": ""}, False),
        ({}, False),
    ],
)
def test_no_proxy_in_lower_and_upper_case(environment: Mapping[str, str], exempt: bool) -> None:
    assert is_exempt("fleet.example.org", environment) == exempt


def test_no_proxy_takes_networks() -> None:
    assert is_exempt("203.0.113.7", {"no_proxy": "203.0.113.0/24"})
    assert not is_exempt("203.0.114.7", {"no_proxy": "203.0.113.0/24"})
    assert not is_exempt("fleet.example.org", {"no_proxy": "203.0.113.0/24"})


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("http_proxy", f"http_proxy is {NOWHERE}, and gRPC asks that proxy for {FAR}; if it is to be reached"),
        ("HTTP_PROXY", f"HTTP_PROXY is {NOWHERE}, which gRPC does not read, so {FAR} was asked directly"),
    ],
)
def test_a_failure_names_the_variable(variable: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, NOWHERE)
    monkeypatch.setattr(connection, "_look_again", lambda *_: None)  # nothing leaves this machine

    async def explained() -> None:
        failure = CoordinatorUnavailableError("the coordinator does not answer")
        with pytest.raises(CoordinatorUnavailableError, match=re.escape(said)):
            await connection.explain(failure, FAR, None)
        (finding,) = await of_proxy(FAR)
        assert (finding.grade, finding.found in said or said.startswith(finding.found)) == (Grade.NOTE, True)
        (finding,) = await of_proxy("127.0.0.1:15051")
        assert (finding.grade, "is reached without it" in finding.found) == (Grade.GOOD, True)

    run(explained())


def test_every_call_of_an_agent_takes_the_proxy_or_none_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who joins through a proxy recalls past rounds through it, too."""
    asked: list[bool] = []

    def noted(*_: object, proxied: bool = False) -> None:
        asked.append(proxied)
        raise CoordinatorUnavailableError("for a test")

    monkeypatch.setattr(transport, "open_channel", noted)
    monkeypatch.setattr(transport, "explain", _nothing)
    far = GrpcTransport(FAR)

    async def all_calls() -> None:
        for call in (far.describe(), far.open(specification()), far.recall(specification(), "token", 0, 1)):
            with pytest.raises(CoordinatorUnavailableError):
                await call

    run(all_calls())
    monkeypatch.setenv("grpc_proxy", NOWHERE)
    run(all_calls())
    assert asked == [False] * 3 + [True] * 3


async def _nothing(*_: object) -> None: ...
