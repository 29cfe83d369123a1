"""Mutual TLS over the loopback: who gets in, who does not and why, renewal in the middle of a run, admin calls."""

import asyncio
import socket
import ssl
import threading
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from behaviour.raw_client import RawStream
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from runs import RINGS, D, join, run, specification, until

from cospan.cli.processes.admin_client import fetch_run, stop_run, watch_rounds
from cospan.client.agent import Agent, AgentEnd, ClientSettings
from cospan.client.session.connection import open_channel
from cospan.client.session.transport import GrpcAgentStream, GrpcTransport
from cospan.core.specification import basis_digest
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.rpc.v1.coordinator_service_pb2_grpc import CoordinatorServiceStub
from cospan.server.admission import interceptor
from cospan.server.admission.peer_limits import Kind, limit_of_peer
from cospan.server.coordinator import Coordinator
from cospan.wire import errors
from cospan.wire import messages as m
from cospan.wire.security import authority
from cospan.wire.security.identity import ADMIN, ANY_AGENT, COORDINATOR, OBSERVER, Identity
from cospan.wire.security.tls import TlsFiles, TlsSource

HOSTS = ("127.0.0.1",)
SECONDS = 10.0
"""Within this time, in seconds, a certificate renewed on disk is in use."""


class Certificates:
    """A folder of `cospan certs`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority.make_authority(folder, name=f"authority {folder.name}", days=2)

    def issue(self, name: str, *uris: str, hosts: tuple[str, ...] = (), days: float = 1.0) -> TlsFiles:
        authority.issue(self.folder, name, uris=uris, hosts=hosts, days=days)
        return self.files(name)

    def agent(self, index: int, **values: Any) -> TlsFiles:
        return self.issue(f"site-{index}", f"cospan:agent:site-{index}", **values)

    def coordinator(self, **values: Any) -> TlsFiles:
        return self.issue("coordinator", COORDINATOR, **{"hosts": HOSTS} | values)

    def files(self, name: str, trusting: Path | None = None) -> TlsFiles:
        folder = self.folder / name
        return TlsFiles(folder / "cert.pem", folder / "key.pem", (trusting or folder) / "ca.pem")

    def renew(self, name: str) -> str:
        """Issues it again; its new serial number."""
        return serial_of(authority.renew(self.folder, name).read_bytes())


def serial_of(pem: bytes) -> str:
    return f"{x509.load_pem_x509_certificate(pem).serial_number:x}"


@pytest.fixture
def certs(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "fleet")


@pytest.fixture
def foreign(tmp_path: Path) -> Certificates:
    """Certificates of another authority."""
    return Certificates(tmp_path / "foreign")


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


def agents_of(certs: Certificates, count: int, address: str) -> list[Agent]:
    return [Agent(RINGS, index=index, coordinator=address, tls=certs.agent(index)) for index in range(count)]


async def ends(agents: list[Agent]) -> list[AgentEnd]:
    return await asyncio.gather(*(agent.run_async() for agent in agents))


@asynccontextmanager
async def channel_to(coordinator: Coordinator, tls: TlsFiles) -> Any:
    async with open_channel(coordinator.address, [], TlsSource(tls)) as channel:
        yield channel


# Those who belong -----------------------------------------------------------------------------------------------


def test_a_fleet_with_certificates_has_the_bits_of_one_without(certs: Certificates) -> None:
    async def digest(tls: TlsFiles | None) -> str:
        async with Coordinator(specification(agents=3, rounds=8), tls=tls) as coordinator:
            if tls is None:
                agents = [Agent(RINGS, index=index, coordinator=coordinator.address) for index in range(3)]
            else:
                agents = agents_of(certs, 3, coordinator.address)
            assert {end.message for end in await ends(agents)} == {"all 8 rounds are done"}
            return basis_digest(coordinator.engine.state.basis)

    assert run(digest(certs.coordinator())) == run(digest(None))


def test_one_certificate_for_the_whole_fleet_may_ask_for_free_sites(certs: Certificates) -> None:
    fleet = certs.issue("fleet", ANY_AGENT)

    async def seated() -> None:
        async with Coordinator(specification(agents=2, rounds=3), tls=certs.coordinator()) as coordinator:
            agents = [Agent(RINGS, coordinator=coordinator.address, tls=fleet) for _ in range(2)]
            await ends(agents)
            assert sorted(agent.agent_id for agent in agents) == ["site-0", "site-1"]

    run(seated())


def test_one_certificate_that_takes_all_it_can_leaves_the_others_theirs(certs: Certificates) -> None:
    """With more streams than its share it is refused; agents with certificates of their own join and learn."""
    greedy = TlsSource(certs.agent(2))
    most = limit_of_peer(Kind.STREAM, 1).unjoined

    async def crowded() -> None:
        tls = certs.coordinator()
        async with (
            Coordinator(specification(agents=2, rounds=3), tls=tls) as coordinator,
            AsyncExitStack() as stack,
        ):
            streams = [
                await stack.enter_async_context(RawStream(coordinator.address, tls=greedy)) for _ in range(most + 5)
            ]
            waiting = {asyncio.create_task(stream.refusal()) for stream in streams}
            (first, *_), _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert type(first.result()) is errors.TooManyStreamsError
            assert "cospan:agent:site-2 has" in str(first.result())
            assert {end.rounds for end in await ends(agents_of(certs, 2, coordinator.address))} == {3}
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    run(crowded(), 40.0)


# Those who do not -----------------------------------------------------------------------------------------------

REFUSED = {
    "none": errors.CertificateRequiredError,
    "of another authority": errors.CertificateRefusedError,
    "expired": errors.CertificateExpiredError,
    "for another agent": errors.IdentityMismatchError,
    "for a range without it": errors.IdentityMismatchError,
    "for observers": errors.IdentityMismatchError,
    "with a malformed name": errors.IdentityMismatchError,
    "trusts another authority": errors.CoordinatorUntrustedError,
}


@pytest.mark.parametrize("kind", REFUSED)
def test_who_does_not_belong_is_refused_with_its_own_reason(
    certs: Certificates, foreign: Certificates, kind: str
) -> None:
    def tls() -> TlsFiles | None:
        match kind:
            case "none":
                return None
            case "of another authority":
                foreign.agent(0)
                return foreign.files("site-0", trusting=certs.folder)
            case "expired":
                return certs.agent(0, days=-0.001)
            case "for another agent":
                return certs.agent(7)
            case "for a range without it":
                return certs.issue("group", "cospan:agents:site-1..9", "cospan:agent:site-00")
            case "for observers":
                return certs.issue("admin", ADMIN, OBSERVER)
            case "with a malformed name":
                return certs.issue("odd", "cospan:agent:site-0", "cospan:agents:*\0.example")
            case _:
                return foreign.agent(0)

    async def refused() -> None:
        async with Coordinator(specification(agents=1), tls=certs.coordinator()) as coordinator:
            outsider = Agent(RINGS, index=0, coordinator=coordinator.address, tls=tls())
            with pytest.raises(REFUSED[kind]) as refusal:
                await outsider.run_async()
            print(refusal.value)
            assert not coordinator.engine.state.members.hosts
            insider = Agent(RINGS, index=0, coordinator=coordinator.address, tls=certs.issue("own", ANY_AGENT))
            assert (await insider.run_async()).rounds == 3, "the others are unharmed"

    run(refused())


def test_every_refusal_has_a_reason_of_its_own() -> None:
    kinds = set(REFUSED.values())
    assert len({kind.reason for kind in kinds}) == len(kinds) == 5


def test_a_free_site_is_not_for_everybody(certs: Certificates) -> None:
    async def refused() -> None:
        async with Coordinator(specification(), tls=certs.coordinator()) as coordinator:
            agent = Agent(RINGS, coordinator=coordinator.address, tls=certs.agent(0))
            with pytest.raises(errors.IdentityMismatchError, match=r"only one for cospan:agents:\* may ask"):
                await agent.run_async()

    run(refused())


def test_a_token_is_no_certificate(certs: Certificates) -> None:
    """A stolen session token does not resume the session under another identity."""

    async def opened(address: str, tls: TlsFiles) -> Any:
        return await GrpcTransport(address, tls=tls).open(specification())

    async def stolen() -> None:
        async with Coordinator(specification(), tls=certs.coordinator()) as coordinator:
            owner = await opened(coordinator.address, certs.agent(0))
            await owner.send(join("site-0"))
            welcome = await owner.receive()
            thief = await opened(coordinator.address, certs.agent(1))
            resumption = m.Resumption(welcome.session_token, welcome.stamp.run_id, 0)
            await thief.send(join("site-0", resumption=resumption))
            with pytest.raises(errors.IdentityMismatchError, match="does not speak for 'site-0'"):
                await thief.receive()
            (session,) = coordinator.engine.state.members.sessions.values()
            assert (session.phase, session.reconnects) == (m.AgentPhase.CONNECTED, 0)
            await thief.close()
            await owner.close()

    run(stolen())


def test_a_coordinator_at_another_name_is_not_trusted(certs: Certificates) -> None:
    async def elsewhere() -> None:
        async with Coordinator(specification(), tls=certs.coordinator()) as coordinator:
            address = coordinator.address.replace("127.0.0.1", "localhost")
            with pytest.raises(errors.CoordinatorUntrustedError, match="is not for localhost"):
                await Agent(RINGS, index=0, coordinator=address, tls=certs.agent(0)).run_async()

    run(elsewhere())


def test_a_coordinator_without_tls_is_not_trusted(certs: Certificates) -> None:
    async def plain() -> None:
        async with Coordinator(specification()) as coordinator:
            with pytest.raises(errors.CoordinatorUntrustedError, match="does not use TLS"):
                await Agent(RINGS, index=0, coordinator=coordinator.address, tls=certs.agent(0)).run_async()

    run(plain())


def test_a_coordinator_that_is_not_there_is_no_matter_of_trust(certs: Certificates) -> None:
    agent = Agent(
        RINGS,
        index=0,
        coordinator="127.0.0.1:9",
        tls=certs.agent(0),
        settings=ClientSettings(progress_timeout_seconds=0.2),
    )
    with pytest.raises(errors.CoordinatorUnavailableError):
        run(agent.run_async())


def test_a_coordinator_does_not_start_with_an_expired_certificate(certs: Certificates) -> None:
    with pytest.raises(errors.CertificateExpiredError, match=r"expired on 2.* renew it first"):
        Coordinator(specification(), tls=certs.coordinator(days=-0.001))


# Renewal --------------------------------------------------------------------------------------------------------


def test_certificates_renewed_on_both_ends_are_in_use_soon_and_no_round_is_lost(
    certs: Certificates, shown: list[tuple[str, str]]
) -> None:
    """One agent is held back, 0.15 s a round, until the renewed ones are seen; so the run is over after 9 s."""
    spec = specification(agents=2, rounds=60)
    seen = threading.Event()

    async def digest(*, renewed: bool) -> str:
        tls = certs.coordinator() if renewed else None
        async with Coordinator(spec, tls=tls) as coordinator:
            agents = [
                Agent(
                    RINGS, index=index, coordinator=coordinator.address, tls=certs.agent(index) if renewed else None
                )
                for index in range(2)
            ]
            if renewed:
                agents[0].on_round.append(lambda _agent, _round: seen.wait(0.15) and None)
                watching = asyncio.create_task(renewal(coordinator))
            assert {end.message for end in await ends(agents)} == {"all 60 rounds are done"}
            if renewed:
                await watching
            reports = coordinator.engine.history.recent(999)
            assert [report.contributors for report in reports] == [2] * len(reports)
            assert coordinator.engine.state.history.rounds_counted == {"site-0": 60, "site-1": 60}
            return basis_digest(coordinator.engine.state.basis)

    async def renewal(coordinator: Coordinator) -> None:
        await until(coordinator.engine, lambda: coordinator.engine.state.round >= 5)
        former = await asyncio.to_thread(serial_shown_by, coordinator, certs.files("site-1"))
        renewed = {name: certs.renew(name) for name in ("coordinator", "site-0", "site-1")}
        assert await asyncio.to_thread(serial_shown_by, coordinator, certs.files("site-1")) != former
        async with asyncio.timeout(SECONDS):
            new = {("cospan:agent:site-0", renewed["site-0"]), ("cospan:agent:site-1", renewed["site-1"])}
            await until(coordinator.engine, lambda: new <= set(shown))
        now = await asyncio.to_thread(serial_shown_by, coordinator, certs.files("site-1"))
        assert now == renewed["coordinator"]
        assert 5 < coordinator.engine.state.round < 60
        seen.set()

    assert run(digest(renewed=True), 40.0) == run(digest(renewed=False))


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
                async with asyncio.timeout(SECONDS):
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


# Admin calls ----------------------------------------------------------------------------------------------------


def test_reading_is_for_observers_and_stopping_for_administrators(certs: Certificates) -> None:
    async def called() -> None:
        async with Coordinator(specification(agents=1, rounds=0), tls=certs.coordinator()) as coordinator:
            address, agent = coordinator.address, certs.agent(0)
            admin, observer = certs.issue("admin", ADMIN), certs.issue("observer", OBSERVER)
            (learner,) = [Agent(RINGS, index=0, coordinator=address, tls=agent)]
            async with learner:
                await until(coordinator.engine, lambda: coordinator.engine.state.round > 3)
                for refused in (agent, certs.files("coordinator")):
                    with pytest.raises(errors.AdminRequiredError, match="this one is for cospan:"):
                        await fetch_run(address, refused)
                    with pytest.raises(errors.AdminRequiredError):
                        await first_round(address, refused)
                    with pytest.raises(grpc.aio.AioRpcError) as no_basis:
                        await basis_of(coordinator, refused)
                    assert no_basis.value.code() is grpc.StatusCode.PERMISSION_DENIED
                    with pytest.raises(errors.AdminRequiredError):
                        await stop_run(address, "no reason", refused)
                for allowed in (observer, admin):
                    assert (await fetch_run(address, allowed)).stamp.round > 3
                    assert (await first_round(address, allowed)).contributors == 1
                    assert (await basis_of(coordinator, allowed)).basis.rows == D
                with pytest.raises(errors.AdminRequiredError, match="a certificate for cospan:admin; this"):
                    await stop_run(address, "no reason", observer)
                assert not coordinator.asked_to_stop
                stamp = await stop_run(address, "the plant is shut down", admin)
                end = await learner.wait()
            assert end.message == "it was stopped by cospan:admin: the plant is shut down"
            assert stamp.round == coordinator.engine.state.round
            assert coordinator.asked_to_stop
            assert (await stop_run(address, "", admin)).round == stamp.round, "a run that is over stays as it is"

    run(called())


async def basis_of(coordinator: Coordinator, tls: TlsFiles) -> pb.GetBasisResponse:
    async with channel_to(coordinator, tls) as channel:
        return await CoordinatorServiceStub(channel).GetBasis(pb.GetBasisRequest())


async def first_round(address: str, tls: TlsFiles) -> m.RoundReport:
    reports = watch_rounds(address, from_round=0, include_basis=False, message_bytes=1 << 20, tls=tls)
    try:
        return await anext(reports)
    finally:
        await reports.aclose()  # type: ignore[attr-defined]


def test_without_tls_this_machine_may_stop_a_run() -> None:
    async def stopped() -> None:
        async with Coordinator(specification(rounds=0)) as coordinator:
            with pytest.raises(errors.InvalidMessageError, match="cause has 513 characters; it may have 512"):
                await stop_run(coordinator.address, "x" * 513)
            await stop_run(coordinator.address, "")
            end = await coordinator.wait()
            assert end.message == "it was stopped by a peer at 127.0.0.1 without a certificate"

    run(stopped())


def test_health_is_for_everybody_with_a_certificate_and_reflection_for_nobody(certs: Certificates) -> None:
    async def asked() -> None:
        async with Coordinator(specification(), tls=certs.coordinator()) as coordinator:
            for tls in (certs.agent(0), certs.files("coordinator")):
                async with channel_to(coordinator, tls) as channel:
                    stub = health_pb2_grpc.HealthStub(channel)
                    answer = await stub.Check(health_pb2.HealthCheckRequest())
                    assert answer.status == health_pb2.HealthCheckResponse.SERVING
                    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
                    request = reflection_pb2.ServerReflectionRequest(list_services="")
                    with pytest.raises(grpc.aio.AioRpcError) as refusal:
                        await anext(aiter(reflection.ServerReflectionInfo(iter([request]))))
                    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED

    run(asked())
