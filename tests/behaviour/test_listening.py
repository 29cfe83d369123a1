"""Names and addresses that a coordinator listens on."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import run, specification

from cospan.client.session.transport import GrpcTransport
from cospan.relay.relay import Relay
from cospan.server.coordinator import Coordinator
from cospan.server.net import binding
from cospan.server.net.binding import free, resolved
from cospan.server.rpc import server
from cospan.wire.address import Address, parse_host
from cospan.wire.errors import InvalidValueError


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name with two addresses of this machine."""
    asked = socket.getaddrinfo

    def answer(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if host != "two.test":
            return asked(host, port, *more, **named)
        return [found for each in ("127.0.0.2", "127.0.0.1") for found in asked(each, port, *more, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return "two.test"


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port in use is not waited for, but in the test of that."""
    monkeypatch.setattr(server, "_BIND_SECONDS", 0.0)


def test_a_port_that_becomes_free_is_taken(taken: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a coordinator that is just ending."""
    monkeypatch.setattr(server, "_BIND_SECONDS", 20.0)
    port, tried = taken.getsockname()[1], server.free

    def free_then(*arguments: Any) -> Any:
        try:
            return tried(*arguments)
        finally:
            taken.close()

    monkeypatch.setattr(server, "free", free_then)

    async def listening() -> None:
        async with Coordinator(specification(), port=port) as coordinator:
            assert (await GrpcTransport(coordinator.address).describe()).workload == "tests"

    run(listening())


def test_an_address_that_others_reach_needs_tls_or_a_word() -> None:
    for host in ("0.0.0.0", "::", "fleet.example.org"):
        with pytest.raises(InvalidValueError, match=r"can reach, and there is no TLS; pass tls="):
            Coordinator(specification(), host=host)
        with pytest.raises(InvalidValueError, match="which other machines can reach"):
            Relay("127.0.0.1:1", host=host)
    Coordinator(specification(), host="0.0.0.0", insecure=True)


def test_a_name_is_listened_on_at_all_of_its_addresses(two: str) -> None:
    async def reached() -> None:
        async with Coordinator(specification(), host=two, insecure=True) as coordinator:
            port = coordinator.address.removeprefix(f"{two}:")
            for host in ("127.0.0.1", "127.0.0.2"):
                described = await GrpcTransport(f"{host}:{port}").describe()
                assert described.workload == "tests"

    run(reached())


def test_a_name_of_which_half_is_taken_is_not_listened_on(two: str, taken: socket.socket) -> None:
    port = taken.getsockname()[1]

    async def refused() -> None:
        coordinator = Coordinator(specification(), host=two, port=port, insecure=True)
        with pytest.raises(
            InvalidValueError, match=f"^cannot listen on 127.0.0.1:{port}: Address already in use; end"
        ):
            await coordinator.start()
        await coordinator.close()

    run(refused())


def test_an_address_that_this_machine_does_not_have_is_said_to_be_so() -> None:
    async def refused() -> None:
        coordinator = Coordinator(specification(), host="192.0.2.7", insecure=True)
        with pytest.raises(InvalidValueError, match=r"^cannot listen on 192\.0\.2\.7:0: Cannot assign requested"):
            await coordinator.start()
        await coordinator.close()

    run(refused())


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(InvalidValueError, match=r"nowhere\.invalid cannot be resolved \("):
        resolved(parse_host("nowhere.invalid", 5), "--host")


def test_an_address_that_is_not_there_is_left_out_where_another_one_is(
    two: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ::1 of localhost is, where IPv6 is off."""

    class Here(socket.socket):
        def bind(self, name: Any) -> None:
            if name[0] == "127.0.0.2":
                raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
            super().bind(name)

    monkeypatch.setattr(binding.socket, "socket", Here)
    assert resolved(Address(two, 5), "--host") == (Address("127.0.0.1", 5),)


def test_ipv6_and_a_unix_socket_are_reached_as_they_are_said_to_listen(tmp_path: Path) -> None:
    path = tmp_path / "cospan.sock"

    async def reached() -> None:
        for host in ("::1", f"unix:{path}"):
            async with Coordinator(specification(), host=host) as coordinator:
                assert (await GrpcTransport(coordinator.address).describe()).workload == "tests"
                if host == "::1":
                    assert coordinator.address.startswith("[::1]:")
                    continue
                second = Coordinator(specification(), host=host)
                with pytest.raises(InvalidValueError, match="Address already in use; choose another path"):
                    await second.start()
                await second.close()

    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    run(reached())
    left_over = socket.socket(socket.AF_UNIX)
    left_over.bind(str(tmp_path / "old.sock"))
    left_over.close()
    old = Address(str(tmp_path / "old.sock"), 0, is_unix=True)
    assert free([old], "--host") == (old,), "a socket without a listener may be taken"
    (tmp_path / "file").touch()
    with pytest.raises(InvalidValueError, match="a file is there that is no socket"):
        free([Address(str(tmp_path / "file"), 0, is_unix=True)], "--host")


def test_the_asyncio_loop_goes_on_while_a_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def both() -> None:
        loop = asyncio.get_running_loop()
        looked_up = resolved

        def slow(address: Address, option: str) -> tuple[Address, ...]:
            loop.call_soon_threadsafe(asked.set)
            return looked_up(address, option)

        monkeypatch.setattr("cospan.server.rpc.server.resolved", slow)
        async with Coordinator(specification()):
            await asked.wait()

    run(both())
