"""Secure sums through relays over real gRPC: the bits of a run without them, and rounds that are void."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from behaviour.certificates import Certificates
from behaviour.test_secure_sums import METHODS, in_process, secure
from runs import RINGS, run, until

from cospan.client.agent import Agent, AgentEnd
from cospan.client.group import AgentGroup
from cospan.core.secure_sums.fixed_point import sum_problem
from cospan.core.secure_sums.layout import layout_of
from cospan.core.specification import RunSpecification
from cospan.relay.engine import RelaySettings
from cospan.relay.relay import Relay
from cospan.server.coordinator import Coordinator
from cospan.wire.errors import CospanError, IdentityMismatchError, InvalidValueError, MembershipRefusedError
from cospan.wire.messages import GradientUpload, MaskedVector

_SECONDS = 120.0
"""Bound on a run; a handshake of each agent and a key for each pair take their time on a busy machine."""


def relay_of(count: int, upstream: str, **options: Any) -> Relay:
    level = options.pop("level", 1)
    return Relay(upstream, settings=RelaySettings(gather_agents=count, level=level), **options)


def agents_at(address: str, indices: Sequence[int]) -> list[Agent]:
    return [Agent(RINGS, index=index, coordinator=address) for index in indices]


async def ends(*members: Agent | AgentGroup) -> list[AgentEnd]:
    return await asyncio.gather(*(member.run_async() for member in members))


def contributors(coordinator: Coordinator) -> list[int]:
    return [report.contributors for report in coordinator.engine.history.recent(10_000)]


@dataclass
class Wire:
    """What a relay or a coordinator received: (key's session or agents, round) → the vectors."""

    uploads: list[GradientUpload]

    def listen(self, engine: Any) -> None:
        take = engine.take

        def taken(token: str, upload: GradientUpload) -> None:
            agents = upload.agent_ids or engine.state.members.sessions[token].agent_ids
            self.uploads.append(replace(upload, agent_ids=agents))
            take(token, upload)

        engine.take = taken


# The bits -----------------------------------------------------------------------------------------------------


async def relayed(spec: RunSpecification, *parts: Sequence[int], direct: Sequence[int] = ()) -> bytes:
    async with contextlib.AsyncExitStack() as stack:
        coordinator = await stack.enter_async_context(Coordinator(spec))
        agents = agents_at(coordinator.address, direct)
        for part in parts:
            relay = await stack.enter_async_context(relay_of(len(part), coordinator.address))
            agents += agents_at(relay.address, part)
        await ends(*agents)
        assert contributors(coordinator) == [spec.agents] * spec.rounds, "no round is void"
        assert len(coordinator.engine.state.members.sessions) == len(parts) + len(direct)
        return coordinator.engine.state.basis.tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_a_relay_and_agents_beside_it_come_to_the_bits_of_a_run_without(name: str) -> None:
    spec = secure(method=METHODS[name])
    assert run(relayed(spec, (0, 1, 2), direct=(3, 4)), _SECONDS) == in_process(spec)


def test_two_relays_come_to_the_same_bits() -> None:
    spec = secure()
    assert run(relayed(spec, (0, 1, 2), (3, 4)), _SECONDS) == in_process(spec)


def test_relays_of_one_agent_each_are_no_member_themselves() -> None:
    """`min_cohort` counts the agents' processes, and not the relays."""
    spec = secure(min_cohort=5)
    assert run(relayed(spec, (0, 1, 2, 3, 4)), _SECONDS) == in_process(spec)


def test_a_relay_behind_a_relay_comes_to_the_same_bits() -> None:
    spec = secure()

    async def stacked() -> bytes:
        async with (
            Coordinator(spec) as coordinator,
            relay_of(4, coordinator.address) as upper,
            relay_of(2, upper.address, level=2) as lower,
        ):
            await ends(
                *agents_at(lower.address, (0, 1)), *agents_at(upper.address, (2, 3)),
                *agents_at(coordinator.address, (4,)),
            )  # fmt: skip
            assert contributors(coordinator) == [5] * 8
            return coordinator.engine.state.basis.tobytes()

    assert run(stacked(), _SECONDS) == in_process(spec)


def test_a_relay_sees_uniform_words_and_no_sum() -> None:
    """Neither a vector nor a partial sum has the check word of one without masks; a bit is 1 half of the time."""
    spec = secure(rounds=8)
    below, above = Wire([]), Wire([])

    async def watched() -> None:
        async with Coordinator(spec) as coordinator, relay_of(3, coordinator.address) as relay:
            above.listen(coordinator.engine)
            below.listen(relay.engine)
            await ends(*agents_at(relay.address, (0, 1, 2)), *agents_at(coordinator.address, (3, 4)))

    run(watched(), _SECONDS)
    assert len(below.uploads) == 3 * 8
    assert sorted({upload.agent_ids for upload in above.uploads}) == [
        ("site-0", "site-1", "site-2"), ("site-3",), ("site-4",)
    ]  # fmt: skip
    ones = bits = 0
    for upload in (*below.uploads, *above.uploads):
        vector = upload.contribution
        assert isinstance(vector, MaskedVector)
        assert sum_problem(vector.words, layout_of(spec, upload.round), int(vector.weight)), "the words are masked"
        ones += int(np.unpackbits(vector.words.view(np.uint8)).sum())
        bits += 64 * len(vector.words)
    assert abs(ones - bits / 2) < 7.0 * np.sqrt(bits) / 2  # of 2e-12 by chance


# Who comes and goes -------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def fleet(spec: RunSpecification, port: int = 0) -> AsyncIterator[tuple[Coordinator, Relay, dict[str, Any]]]:
    """A run without an end of agents 0 to 2 below a relay, and 3 and 4 beside it, after five rounds."""
    async with Coordinator(spec) as coordinator, relay_of(3, coordinator.address, port=port) as relay:
        agents = agents_at(relay.address, (0, 1, 2)) + agents_at(coordinator.address, (3, 4))
        tasks = {f"site-{index}": asyncio.create_task(each.run_async()) for index, each in enumerate(agents)}
        await until(coordinator.engine, lambda: coordinator.engine.state.round >= 5)
        yield coordinator, relay, tasks
        coordinator.stop("enough")
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def more_rounds(coordinator: Coordinator, count: int = 5) -> None:
    wanted = coordinator.engine.state.round + count
    await until(coordinator.engine, lambda: coordinator.engine.state.round >= wanted)


def test_an_agent_that_dies_below_a_relay_voids_one_round() -> None:
    async def program() -> None:
        async with fleet(secure(rounds=0, session_timeout_seconds=5.0)) as (coordinator, relay, tasks):
            tasks["site-1"].cancel()
            await until(coordinator.engine, lambda: "site-1" not in coordinator.engine.state.members.hosts)
            await more_rounds(coordinator)
            found = contributors(coordinator)
            assert set(found) == {5, 4, 0}
            assert found.count(0) == 1
            assert found[-1] == 4
            assert set(relay.engine.state.members.hosts) == {"site-0", "site-2"}

    run(program(), _SECONDS)


def test_an_agent_that_joins_a_relay_voids_none() -> None:
    async def program() -> None:
        async with fleet(secure(rounds=0)) as (coordinator, relay, tasks):
            (comes,) = agents_at(relay.address, (5,))
            tasks["site-5"] = asyncio.create_task(comes.run_async())
            engine = coordinator.engine
            await until(engine, lambda: engine.state.history.rounds_counted.get("site-5", 0) >= 5)
            found = contributors(coordinator)
            assert set(found) == {5, 6}

    run(program(), _SECONDS)


def test_a_relay_that_is_gone_and_comes_back_costs_one_void_round_at_most() -> None:
    """Its members are the same, with the same keys: what they have masked counts, once all of them are back."""

    async def program() -> None:
        spec = secure(rounds=0, session_timeout_seconds=30.0)
        async with fleet(spec) as (coordinator, relay, _):
            port = int(relay.address.rpartition(":")[2])
            await relay._listener._server.stop(0)  # type: ignore[union-attr]  # as a kill: no agent is told why
            await relay.engine.close()
            async with relay_of(3, coordinator.address, port=port):
                before = coordinator.engine.state.round
                await more_rounds(coordinator)
                found = contributors(coordinator)
                assert found.count(0) <= 1
                assert set(found[before + 1 :]) == {5}, "all members are in it again"
                coordinator.stop("enough")
                await coordinator.wait()

    run(program(), _SECONDS)


def test_an_agent_that_moves_to_the_coordinator_sends_no_second_vector_for_a_round() -> None:
    async def program() -> None:
        spec = secure(rounds=0, session_timeout_seconds=5.0)
        wire = Wire([])
        async with Coordinator(spec) as coordinator, relay_of(3, coordinator.address) as relay:
            where = {"now": relay.address}
            moving = Agent(RINGS, index=0, coordinator=lambda: where["now"])
            agents = [moving, *agents_at(relay.address, (1, 2)), *agents_at(coordinator.address, (3, 4))]
            tasks = [asyncio.create_task(each.run_async()) for each in agents]
            engine = coordinator.engine
            await until(engine, lambda: engine.state.round >= 5)
            for each in (engine, relay.engine):
                wire.listen(each)
            where["now"] = coordinator.address
            hosts = relay.engine.state.members
            relay.engine.streams.close(hosts.sessions[hosts.hosts["site-0"]].stream, None)
            await until(engine, lambda: len(engine.state.members.sessions) == 4)
            counted = engine.state.history.rounds_counted["site-0"]
            await until(engine, lambda: engine.state.history.rounds_counted["site-0"] > counted + 5)
            coordinator.stop("enough")
            await asyncio.gather(*tasks)
        sent: dict[tuple[Any, int], set[bytes]] = defaultdict(set)
        for upload in wire.uploads:
            if upload.agent_ids == ("site-0",):
                assert isinstance(upload.contribution, MaskedVector)
                sent[upload.agent_ids, upload.round].add(upload.contribution.words.tobytes())
        assert sent
        assert {len(vectors) for vectors in sent.values()} == {1}

    run(program(), _SECONDS)


# A relay that lies --------------------------------------------------------------------------------------------


def test_wrong_words_of_a_relay_void_every_round_and_change_nothing() -> None:
    spec = secure(rounds=6)

    async def program() -> None:
        async with Coordinator(spec) as coordinator, relay_of(3, coordinator.address) as relay:
            sums = relay.engine._upstream.upload

            def wrong(upload: GradientUpload) -> None:
                vector = upload.contribution
                assert isinstance(vector, MaskedVector)
                sums(replace(upload, contribution=replace(vector, words=vector.words + np.uint64(1))))

            relay.engine._upstream.upload = wrong  # type: ignore[method-assign]
            await ends(*agents_at(relay.address, (0, 1, 2)), *agents_at(coordinator.address, (3, 4)))
            assert contributors(coordinator) == [0] * 6
            assert np.array_equal(coordinator.engine.state.basis, spec.initial_basis())

    run(program(), _SECONDS)


def certified(certs: Certificates, count: int, address: str) -> list[Agent]:
    return [Agent(RINGS, index=index, coordinator=address, tls=certs.agent(index)) for index in range(count)]


@contextlib.asynccontextmanager
async def proven(certs: Certificates, spec: RunSpecification, uri: str) -> AsyncIterator[tuple[Coordinator, Relay]]:
    server = certs.coordinator()
    async with Coordinator(spec, tls=server) as coordinator:
        above = certs.issue("above", uri)
        async with relay_of(3, coordinator.address, tls=server, upstream_tls=above) as relay:
            yield coordinator, relay


def test_with_tls_the_keys_below_a_relay_are_proven_by_their_agents(tmp_path: Path) -> None:
    spec, certs = secure(agents=3), Certificates(tmp_path / "certs")

    async def program() -> bytes:
        async with proven(certs, spec, "cospan:relay:site-0..2") as (coordinator, relay):
            await ends(*certified(certs, 3, relay.address))
            assert contributors(coordinator) == [3] * 8
            return coordinator.engine.state.basis.tobytes()

    assert run(program(), _SECONDS) == in_process(spec)


@pytest.mark.parametrize("uri", ["cospan:agents:site-0..2", "cospan:agent:site-0", "cospan:agents:*"])
def test_a_relay_that_could_make_keys_for_its_agents_does_not_start(uri: str, tmp_path: Path) -> None:
    certs = Certificates(tmp_path / "certs")

    async def program() -> None:
        with pytest.raises(InvalidValueError, match="cospan certs issue --relay"):
            async with proven(certs, secure(agents=3), uri):
                pass

    run(program(), _SECONDS)


def test_a_relay_of_other_agents_may_not_bring_them(tmp_path: Path) -> None:
    certs = Certificates(tmp_path / "certs")

    async def program() -> None:
        async with proven(certs, secure(agents=3), "cospan:relay:site-5..9") as (_, relay):
            agents = [asyncio.create_task(each.run_async()) for each in certified(certs, 3, relay.address)]
            with pytest.raises(IdentityMismatchError):
                await relay.wait()
            for each in agents:
                each.cancel()
            await asyncio.gather(*agents, return_exceptions=True)

    run(program(), _SECONDS)


def test_keys_that_a_relay_puts_in_place_of_others_are_refused_by_the_agents(tmp_path: Path) -> None:
    """Its own certificate proves none, so it cannot stand between an agent and the others."""
    certs = Certificates(tmp_path / "certs")

    async def program() -> list[BaseException | AgentEnd]:
        async with proven(certs, secure(agents=3), "cospan:relay:site-0..2") as (_, relay):
            streams = relay.engine.streams
            sent = streams.send

            def swapped(session: Any, message: Any) -> None:
                if hasattr(message, "key_proofs") and hasattr(message, "members"):
                    keys = list(message.key_proofs)
                    turned = [*keys[1:], *keys[:1]]
                    proofs = {key: message.key_proofs[of] for key, of in zip(keys, turned, strict=True)}
                    message = replace(message, key_proofs=proofs)
                sent(session, message)

            streams.send = swapped  # type: ignore[method-assign]
            return await asyncio.gather(
                *(each.run_async() for each in certified(certs, 3, relay.address)), return_exceptions=True
            )

    assert any(isinstance(end, MembershipRefusedError) for end in run(program(), _SECONDS))


def test_what_no_relay_can_do_is_still_refused() -> None:
    spec = secure(method=replace(METHODS["full-history"], warm_up_rounds=0))

    async def program() -> None:
        async with Coordinator(spec) as coordinator, relay_of(5, coordinator.address) as relay:
            with pytest.raises(CospanError, match="a relay assigns no sites"):
                await Agent(RINGS, site_claim_id="x", coordinator=relay.address).run_async()

    run(program(), _SECONDS)
