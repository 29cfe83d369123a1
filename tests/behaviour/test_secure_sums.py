"""Runs with secure sums over real gRPC: the bits of a run in one process, and deaths that void one round each."""

import asyncio
import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from behaviour.certificates import Certificates
from behaviour.certificates import agents_of as agents_with
from behaviour.command import TOY, cospan, ended, line_of, result_of, started
from behaviour.fleets import agents_of, ends
from runs import RINGS, run, specification, until
from stored import NAME

from cospan.client.agent import Agent, ClientSettings
from cospan.client.placement import hosts_of
from cospan.core.method import compact, full_history, paper, practical
from cospan.core.specification import RunSpecification
from cospan.server.coordinator import Coordinator
from cospan.server.storage.reader import read_reports, read_state
from cospan.simulation.local_run import LocalRun
from cospan.wire.errors import IdentityMismatchError, InvalidValueError, MembershipRefusedError
from cospan.wire.messages import FinishCause
from cospan.wire.secure_sums.proof import KeyProof

_SECONDS = 90.0
"""Bound on a run; a handshake of each agent and a key for each pair take their time on a busy machine."""
METHODS = {"paper": paper(3), "compact": compact(3), "full-history": full_history(3), "practical": practical(3)}


def secure(**changes: Any) -> RunSpecification:
    values = {"agents": 5, "rounds": 8, "secure_sums": True, "min_cohort": 3, "feature_fingerprint": "map-1"}
    return specification(**(values | changes))


def in_process(spec: RunSpecification) -> bytes:
    local = LocalRun(spec, RINGS, hosts_of(spec, None), run_id="local")
    try:
        local.join_all()
        while not local.is_over:
            local.run_round()
    finally:
        local.close()
    return local.state.basis.tobytes()


@pytest.mark.parametrize("name", METHODS)
def test_the_bits_are_those_of_a_run_in_one_process_and_nearly_those_without(name: str) -> None:
    spec = secure(method=METHODS[name])

    async def networked() -> bytes:
        async with Coordinator(spec) as coordinator:
            await ends(agents_of(5, coordinator.address))
            reports = coordinator.engine.history.recent(99)
            assert [report.contributors for report in reports] == [5] * 8
            return coordinator.engine.state.basis.tobytes()

    bits = run(networked(), _SECONDS)
    assert bits == in_process(spec)
    plain = in_process(replace(spec, secure_sums=False, min_cohort=0))
    np.testing.assert_allclose(np.frombuffer(bits), np.frombuffer(plain), rtol=0.0, atol=1e-9)


def test_an_agent_that_dies_voids_a_round_and_one_that_joins_none() -> None:
    spec = secure(rounds=0, session_timeout_seconds=5.0)

    async def program() -> None:
        async with Coordinator(spec) as coordinator:
            engine = coordinator.engine
            *stay, dying = [asyncio.create_task(each.run_async()) for each in agents_of(5, coordinator.address)]
            await until(engine, lambda: engine.state.round >= 5)
            dying.cancel()
            await asyncio.gather(dying, return_exceptions=True)
            await until(engine, lambda: len(engine.state.members.sessions) == 4)
            gone = engine.state.round
            await until(engine, lambda: engine.state.round >= gone + 5)
            (again,) = agents_of(5, coordinator.address)[4:]
            stay.append(asyncio.create_task(again.run_async()))
            await until(engine, lambda: engine.state.last_rounds.get("site-4", 0) > gone)
            coordinator.stop("enough")
            await asyncio.gather(*stay)
            contributors = [report.contributors for report in engine.history.recent(10_000)]
            assert set(contributors) == {5, 4, 0}
            assert contributors.count(0) <= 2  # at most one for the death, and one where it was on its way
            assert (await coordinator.wait()).cause is FinishCause.STOPPED

    run(program(), _SECONDS)


def test_with_tls_keys_are_proven(tmp_path: Path) -> None:
    certs = Certificates(tmp_path / "certs")
    spec = secure(agents=3)

    async def networked() -> bytes:
        async with Coordinator(spec, tls=certs.coordinator()) as coordinator:
            await ends(agents_with(certs, 3, coordinator.address))
            return coordinator.engine.state.basis.tobytes()

    assert run(networked(), _SECONDS) == in_process(spec)


def test_a_process_that_asks_for_a_site_proves_its_key_by_a_certificate_for_every_agent(tmp_path: Path) -> None:
    certs = Certificates(tmp_path / "certs")
    fleet = certs.issue("fleet", "cospan:agents:*")

    async def networked() -> list[int]:
        async with Coordinator(secure(agents=3), sites=3, tls=certs.coordinator()) as coordinator:
            agents = [
                Agent(RINGS, site_claim_id=f"container-{k}", coordinator=coordinator.address, tls=fleet)
                for k in range(3)
            ]
            await ends(agents)
            return [report.contributors for report in coordinator.engine.history.recent(99)]

    assert run(networked(), _SECONDS) == [3] * 8


def test_a_key_that_is_not_proven_may_not_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certs = Certificates(tmp_path / "certs")
    monkeypatch.setattr("cospan.client.session.masking.proof_of", lambda *_: KeyProof(b"none", b"none"))

    async def networked() -> None:
        async with Coordinator(secure(agents=3), tls=certs.coordinator()) as coordinator:
            (agent,) = agents_with(certs, 1, coordinator.address)
            with pytest.raises(IdentityMismatchError, match="the key of 'site-0' is not proven"):
                await agent.run_async()

    run(networked(), _SECONDS)


def test_a_key_of_another_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a coordinator would do that puts itself between agents: other keys, with the proofs of the former."""
    certs = Certificates(tmp_path / "certs")

    async def networked() -> list[BaseException | Any]:
        async with Coordinator(secure(agents=3), tls=certs.coordinator()) as coordinator:
            streams = coordinator.engine.streams
            sent = streams.send

            def swapped(session: Any, message: Any) -> None:
                if hasattr(message, "key_proofs") and hasattr(message, "members"):
                    keys = list(message.key_proofs)
                    turned = [*keys[1:], *keys[:1]]
                    proofs = {key: message.key_proofs[of] for key, of in zip(keys, turned, strict=True)}
                    message = replace(message, key_proofs=proofs)
                sent(session, message)

            monkeypatch.setattr(streams, "send", swapped)
            agents = agents_with(certs, 3, coordinator.address)
            return await asyncio.gather(*(each.run_async() for each in agents), return_exceptions=True)

    assert any(isinstance(end, MembershipRefusedError) for end in run(networked(), _SECONDS))


def test_a_coordinator_that_is_killed_comes_to_the_same_bits(tmp_path: Path) -> None:
    size = ("--agents", "3", "--rank", "1", "--seed", "4", "--rounds", "300", "--secure-sums")
    command = ("coordinator", "--workload", TOY, *size, "--run-folder", "run", "--json", "--port")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(started(*command, "0", cwd=tmp_path))
        address = json.loads(line_of(first, '"listening"'))["address"]
        agents = [
            stack.enter_context(started("agent", TOY, "--id", str(k), "--coordinator", address, cwd=tmp_path))
            for k in range(3)
        ]
        line_of(first, '"round", ')
        first.kill()
        first.communicate()
        again = stack.enter_context(started(*command, address.rpartition(":")[2], cwd=tmp_path))
        assert ended(again)[0] == 0
        assert [ended(agent)[0] for agent in agents] == [0, 0, 0]
    state = read_state(tmp_path / "run" / NAME, check=True)
    assert (state.rounds, state.incarnation) == (300, 2)
    assert {report.contributors for report in read_reports(tmp_path / "run" / NAME)} == {3}, "no round was void"
    assert cospan("run", TOY, *size, "--in-process", "--output", "whole", "--quiet", cwd=tmp_path)[0] == 0
    assert result_of(tmp_path / "run")["basis_sha256"] == result_of(tmp_path / "whole")["basis_sha256"]


def test_nothing_of_a_single_agent_is_shared() -> None:
    async def networked() -> None:
        async with Coordinator(secure()) as coordinator:
            agent = Agent(
                RINGS, index=0, coordinator=coordinator.address, settings=ClientSettings(share_td_error=True)
            )
            with pytest.raises(InvalidValueError, match="share_td_error is set, and the run has secure sums"):
                await agent.run_async()

    run(networked(), _SECONDS)


def test_too_few_processes_cannot_begin() -> None:
    spec = secure(agents=2, min_cohort=2)
    local = LocalRun(spec, RINGS, hosts_of(spec, 1), run_id="local")
    with pytest.raises(InvalidValueError, match="the run has 1 agent processes"):
        local.join_all()
