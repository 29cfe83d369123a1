"""Bad connections: each is closed in time, costs little, and does not disturb other peers."""

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from behaviour.idlers import PREFACE, SAYINGS, Idlers, open_files, resident_bytes
from runs import ring_site, run, specification, until

from cospan.client.agent import Agent
from cospan.client.workload import Workload
from cospan.core.method import paper
from cospan.core.specification import basis_digest
from cospan.server.admission import file_limits
from cospan.server.admission.file_limits import connections_allowed
from cospan.server.admission.peer_limits import Kind, limit_of_all, most_connections
from cospan.server.coordinator import Coordinator
from cospan.wire import limits

RINGS = Workload(make_site=ring_site, name="rings")
SPEC = specification(paper(3), agents=2, rounds=30)
IDLE = 500
BYTES_EACH = 24 * 1024
"""What a connection may cost the coordinator; measured: 10 to 14 KiB."""
BYTES_MORE = 16 * 1024 * 1024
"""What the coordinator may need besides, for its run."""


async def learn(address: str, after_round: Callable[[int], None] = lambda _: None) -> None:
    """Two honest agents do their rounds."""
    agents = [Agent(RINGS, index=index, coordinator=address) for index in range(2)]
    agents[0].on_round.append(lambda _, number: after_round(number))
    ends = await asyncio.gather(*(agent.run_async() for agent in agents))
    assert {end.message for end in ends} == {"all 30 rounds are done"}


async def unharmed_digest() -> str:
    async with Coordinator(SPEC) as coordinator:
        await learn(coordinator.address)
        return basis_digest(coordinator.engine.state.basis)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator that waits a second for what it waits longer for otherwise."""
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 1)
    monkeypatch.setattr(limits, "IDLE_SECONDS", 1)


@pytest.mark.parametrize("name", SAYINGS)
@pytest.mark.usefixtures("hurried")
def test_a_connection_of_no_use_is_closed(name: str) -> None:
    """While two honest agents learn, and come to the bits that they come to without it."""

    async def attacked() -> str:
        async with Coordinator(SPEC) as coordinator, Idlers(coordinator.address, 20, SAYINGS[name]) as idlers:
            await learn(coordinator.address)
            await idlers.all_closed()
            return basis_digest(coordinator.engine.state.basis)

    assert run(attacked()) == run(unharmed_digest())


@pytest.mark.usefixtures("hurried")
def test_a_handshake_that_comes_byte_by_byte_is_ended_all_the_same() -> None:
    async def dribbled() -> None:
        async with Coordinator(SPEC) as coordinator:
            host, _, port = coordinator.address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            ended = asyncio.create_task(reader.read(1))
            for byte in PREFACE:
                writer.write(bytes((byte,)))
                done, _ = await asyncio.wait({ended}, timeout=0.5)
                if done:
                    break
            assert ended.done(), "it was open for 24 bytes, and 12 s"
            writer.close()

    run(dribbled())


def test_there_are_only_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open connections stay open; one above the limit is closed at once and not left waiting."""
    monkeypatch.setattr(file_limits, "most_connections", lambda _: 5)

    async def crowded() -> None:
        async with Coordinator(SPEC) as coordinator:
            agents = [Agent(RINGS, index=index, coordinator=coordinator.address) for index in range(2)]
            running = asyncio.gather(*(agent.run_async() for agent in agents))
            await until(coordinator.engine, lambda: coordinator.engine.state.round > 0)
            async with Idlers(coordinator.address, 4, b""), Idlers(coordinator.address, 20, b"") as surplus:
                await surplus.all_closed()
                await running

    run(crowded())


def test_connections_leave_room_for_other_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def of_limit(soft: int) -> int:
        monkeypatch.setattr(file_limits.resource, "getrlimit", lambda _: (soft, soft))
        return connections_allowed(8)

    assert of_limit(1_000_000) == of_limit(file_limits.resource.RLIM_INFINITY) == most_connections(8)
    assert of_limit(1024) == 1024 - 128 - 128 - 32, "128 for a dashboard, 32 for metrics"
    assert not caplog.records
    needed = limit_of_all(Kind.STREAM, 8).at_once
    assert of_limit(256) == 128 - 21 - 10
    assert f"for the {needed} streams of 8 agents it should be {needed + 288}" in caplog.text
    assert of_limit(64) == 1


def test_many_idle_connections_cost_little_and_harm_nobody(tmp_path: Path) -> None:
    """A coordinator of its own, whose memory and open files are its own."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("what a process has in use is read from /proc")
    flags = ["--feature-dim", "4", "--rank", "2", "--agents", "2", "--rounds", "30", "--seed", "1"]
    flags += ["--steps-per-round", "3", "--preset", "paper", "--port", "0", "--json"]

    async def crowded() -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cospan.cli.main",
            "coordinator",
            *flags,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            address = json.loads(await process.stdout.readline())["address"]
            files, used = open_files(process.pid), resident_bytes(process.pid)

            def measure(number: int) -> None:
                if number == SPEC.rounds - 1:
                    more.append((open_files(process.pid) - files, resident_bytes(process.pid) - used))

            more: list[tuple[int, int]] = []
            async with Idlers(address, IDLE, SAYINGS["a preface without settings"]):
                await learn(address, measure)
                lines = [json.loads(line) async for line in process.stdout]
                assert await process.wait() == 0
            ((more_files, more_bytes),) = more
            assert IDLE <= more_files <= IDLE + 10
            assert more_bytes <= IDLE * BYTES_EACH + BYTES_MORE
            return str(next(line["basis_sha256"] for line in lines if line["event"] == "finished"))
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()

    assert run(crowded()) == run(unharmed_digest())
