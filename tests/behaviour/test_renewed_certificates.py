"""Certificates that are renewed while the fleet runs: both ends use the new ones, and no round is lost."""

import asyncio
import socket
import ssl
import threading
from typing import Any

import pytest
from behaviour.certificates import Certificates, agents_of, ends, serial_of
from cryptography import x509
from runs import RINGS, SECONDS, run, specification, until

from cospan.client.agent import Agent
from cospan.client.session.transport import GrpcAgentStream, GrpcTransport
from cospan.core.specification import basis_digest
from cospan.server.admission import interceptor
from cospan.server.coordinator import Coordinator
from cospan.wire import messages as m
from cospan.wire.security import authority
from cospan.wire.security.identity import Identity
from cospan.wire.security.tls import TlsFiles


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Identity and serial number of every certificate that a call has shown to the coordinator."""
    seen: list[tuple[str, str]] = []
    original = interceptor.peer_identity

    def recording(context: Any) -> Identity:
        identity = original(context)
        (pem,) = context.auth_context().get("x509_pem_cert", [b""])
        if pem:
            seen.append((identity.name, serial_of(pem)))
        return identity

    monkeypatch.setattr(interceptor, "peer_identity", recording)
    return seen


def test_certificates_renewed_on_both_ends_are_in_use_soon_and_no_round_is_lost(
    certs: Certificates, shown: list[tuple[str, str]]
) -> None:
    """The run ends once they are seen; until then one agent holds back each round for 0.15 s."""
    seen = threading.Event()

    async def digest(rounds: int, *, renewed: bool) -> tuple[str, int]:
        tls = certs.coordinator() if renewed else None
        async with Coordinator(specification(agents=2, rounds=rounds), tls=tls) as coordinator:
            agents = [
                Agent(
                    RINGS, index=index, coordinator=coordinator.address, tls=certs.agent(index) if renewed else None
                )
                for index in range(2)
            ]
            if renewed:
                agents[0].on_round.append(lambda _agent, _round: seen.wait(0.15) and None)
                watching = asyncio.create_task(renewal(coordinator))
            said = "all have been seen" if renewed else f"all {rounds} rounds are done"
            assert {end.message for end in await ends(agents)} == {said}
            if renewed:
                await watching
            state = coordinator.engine.state
            reports = coordinator.engine.history.recent(state.round)
            assert [report.contributors for report in reports] == [2] * state.round
            assert state.history.rounds_counted == dict.fromkeys(("site-0", "site-1"), state.round)
            return basis_digest(state.basis), state.round

    async def renewal(coordinator: Coordinator) -> None:
        await until(coordinator.engine, lambda: coordinator.engine.state.round >= 5)
        former = await asyncio.to_thread(serial_shown_by, coordinator, certs.files("site-1"))
        renewed = {name: certs.renew(name) for name in ("coordinator", "site-0", "site-1")}
        assert await asyncio.to_thread(serial_shown_by, coordinator, certs.files("site-1")) != former
        new = {("cospan:agent:site-0", renewed["site-0"]), ("cospan:agent:site-1", renewed["site-1"])}
        await until(coordinator.engine, lambda: new <= set(shown))
        now = await asyncio.to_thread(serial_shown_by, coordinator, certs.files("site-1"))
        assert now == renewed["coordinator"]
        assert coordinator.engine.state.round > 5
        coordinator.stop("all have been seen")
        seen.set()

    found, rounds = run(digest(0, renewed=True))
    assert (found, rounds) == run(digest(rounds, renewed=False))


def serial_shown_by(coordinator: Coordinator, tls: TlsFiles) -> str:
    """The serial number of the certificate that a new handshake shows."""
    context = ssl.create_default_context(cafile=tls.authority)
    context.load_cert_chain(tls.certificate, tls.key)
    host, _, port = coordinator.address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), SECONDS) as raw,
        context.wrap_socket(raw, server_hostname=host) as secured,
    ):
        encoded = secured.getpeercert(binary_form=True)
        assert encoded is not None
        return f"{x509.load_der_x509_certificate(encoded).serial_number:x}"


def test_an_agent_that_waits_long_for_a_basis_shows_its_new_certificate_too(
    certs: Certificates, shown: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes to end the stream after: the first round waits for a second agent."""
    monkeypatch.setattr("cospan.client.session.transport._ROUND_END_SECONDS", 0.1)

    async def waiting() -> None:
        async with Coordinator(specification(agents=2), tls=certs.coordinator()) as coordinator:
            first, second = agents_of(certs, 2, coordinator.address)
            async with first:
                await until(coordinator.engine, lambda: "site-0" in coordinator.engine.state.members.hosts)
                renewed = certs.renew("site-0")
                await until(coordinator.engine, lambda: ("cospan:agent:site-0", renewed) in shown)
                assert (await second.run_async()).rounds == 3
                assert (await first.wait()).rounds == 3

    run(waiting())


def test_a_stream_ends_in_order_while_it_waits_for_a_renewal(certs: Certificates) -> None:
    async def closed() -> None:
        async with Coordinator(specification(), tls=certs.coordinator()) as coordinator:
            stream = await GrpcTransport(coordinator.address, tls=certs.agent(0)).open(specification())
            assert isinstance(stream, GrpcAgentStream)
            await stream.close()

    run(closed())
    assert threading.active_count() < 50


def test_an_expired_certificate_is_cured_by_its_renewal_in_the_middle_of_a_run(
    certs: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once an agent is in, a certificate that is not accepted is waited out: it may be renewed."""
    monkeypatch.setattr("cospan.client.session.transport._ROUND_END_SECONDS", 0.1)

    async def cured() -> None:
        files = certs.coordinator()
        async with Coordinator(specification(agents=2, rounds=3), tls=files) as coordinator:
            first, second = agents_of(certs, 2, coordinator.address)
            async with first:
                await until(coordinator.engine, lambda: "site-0" in coordinator.engine.state.members.hosts)
                authority.renew(certs.folder, "site-0", days=-0.001)
                await until(coordinator.engine, lambda: lost(coordinator) == ["site-0"])
                authority.renew(certs.folder, "site-0", days=1)
                await until(coordinator.engine, lambda: not lost(coordinator))
                await second.run_async()
                assert (await first.wait()).rounds == 3

    run(cured())


def lost(coordinator: Coordinator) -> list[str]:
    sessions = coordinator.engine.state.members.sessions.values()
    return [session.agent_ids[0] for session in sessions if session.phase is m.AgentPhase.LOST]
