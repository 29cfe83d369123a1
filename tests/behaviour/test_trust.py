"""Who belongs to a fleet with certificates and who does not: each is refused with its own reason."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from behaviour.certificates import Certificates, agents_of, ends
from behaviour.raw_client import RawStream
from runs import RINGS, join, run, specification

from cospan.client.agent import Agent, ClientSettings
from cospan.client.session.transport import GrpcTransport
from cospan.core.specification import basis_digest
from cospan.server.admission.peer_limits import Kind, limit_of_peer
from cospan.server.coordinator import Coordinator
from cospan.wire import errors
from cospan.wire import messages as m
from cospan.wire.security.identity import ADMIN, ANY_AGENT, OBSERVER
from cospan.wire.security.tls import TlsFiles, TlsSource


@pytest.fixture
def foreign(tmp_path: Path) -> Certificates:
    """Certificates of another authority."""
    return Certificates(tmp_path / "foreign")


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

    run(crowded())


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
