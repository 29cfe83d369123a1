"""What happens to a fleet when its containers and its network misbehave. Every run ends, says what happened, and
counts every round once."""

import os
import random
import time
from collections.abc import Callable, Iterable

import pytest
from docker import DockerClient
from e2e.stack import WAIT_SECONDS, Stack, basis_alone

SESSION_TIMEOUT = 4
"""Seconds; on a loaded machine a healthy container can be silent for two."""
PACED = {"COSPAN_SESSION_TIMEOUT_SECONDS": SESSION_TIMEOUT, "PACE_SECONDS": 0.008}
"""Rounds of five steps: about 20 a second."""


def check(stack: Stack, *, rounds: int, agents: int) -> None:
    """The run has ended as it should, and no round is lost or counted twice."""
    assert stack.end() == 0
    result = stack.result()
    assert (result["finish_cause"], result["rounds"]) == ("rounds-reached", rounds)
    assert result["agents"] == agents, "at the end"
    assert [int(row["round"]) for row in stack.rounds()] == list(range(rounds))


def contributors(stack: Stack) -> Iterable[int]:
    return (int(row["contributors"]) for row in stack.rounds())


def running(stack: Stack) -> Stack:
    stack.wait_until_said("run started")
    stack.wait_for(lambda: len(stack.rounds()) > 5, "some rounds have closed")
    return stack


def undisturbed(agents: int, rounds: int) -> str:
    """The basis of the same run in one process, where nothing can be lost."""
    return basis_alone("paced:rings", agents, rounds)


def test_an_agent_killed_and_started_again(start: Callable[..., Stack]) -> None:
    stack = running(start(COSPAN_AGENTS=3, COSPAN_ROUNDS=200, **PACED))
    victim = stack.agents()["site-1"]
    victim.kill()
    stack.wait_until_said("agent lost", "site-1")
    victim.start()
    stack.wait_until_said("agent gone", "site-1")
    check(stack, rounds=200, agents=3)
    assert [line for line in stack.said() if "agent joined: site-1" in line][1:], "it came back to its own site"
    assert max(contributors(stack)) == 3
    assert victim.wait(timeout=WAIT_SECONDS)["StatusCode"] == 0
    assert stack.learnt() == ["site-0.npz", "site-1.npz", "site-2.npz"]


def test_a_coordinator_killed_and_started_again(start: Callable[..., Stack]) -> None:
    """By SIGKILL, at random moments: the same bits as in one process, where nothing can be lost."""
    kills = int(os.environ.get("COORDINATOR_KILLS", "2"))
    rng = random.Random(os.environ.get("COORDINATOR_KILLS_SEED", "1"))
    rounds = 60 + 40 * kills
    stack = running(start(COSPAN_AGENTS=3, COSPAN_ROUNDS=rounds, **PACED))
    for _ in range(kills):
        before = len(stack.rounds())
        time.sleep(rng.uniform(0.0, 0.5))
        stack.coordinator.kill()
        stack.coordinator.start()
        stack.wait_for(lambda before=before: len(stack.rounds()) > before + 5, "rounds")  # type: ignore[misc]
    check(stack, rounds=rounds, agents=3)
    assert set(contributors(stack)) == {3}
    assert stack.result()["basis_sha256"] == undisturbed(3, rounds)


def test_an_agent_paused_for_longer_than_the_session_timeout(start: Callable[..., Stack]) -> None:
    stack = running(start(COSPAN_AGENTS=3, COSPAN_ROUNDS=250, **PACED))
    victim = stack.agents()["site-2"]
    victim.pause()
    stack.wait_until_said("agent gone", "site-2", f"silent for {SESSION_TIMEOUT} s")
    before = len(stack.rounds())
    stack.wait_for(lambda: len(stack.rounds()) > before + 5, "the others go on")
    victim.unpause()
    check(stack, rounds=250, agents=3)
    assert {2, 3} <= set(contributors(stack))


def test_an_agent_cut_from_the_network_and_back(start: Callable[..., Stack], client: DockerClient) -> None:
    stack = running(start(COSPAN_AGENTS=3, COSPAN_ROUNDS=300, **PACED))
    victim = stack.agents()["site-0"]
    (network,) = client.networks.list(filters={"label": f"com.docker.compose.project={stack.project}"})
    network.disconnect(victim)
    stack.wait_until_said("agent gone", "site-0")
    network.connect(victim)
    check(stack, rounds=300, agents=3)
    assert {2, 3} <= set(contributors(stack))


def test_half_of_the_agents_gone_at_once(start: Callable[..., Stack]) -> None:
    stack = running(start(COSPAN_AGENTS=4, COSPAN_ROUNDS=200, **PACED))
    agents = stack.agents()
    for name in ("site-1", "site-3"):
        agents[name].kill()
    check(stack, rounds=200, agents=2)
    gone = {departure["agent_id"]: departure["cause"] for departure in stack.result()["departures"]}
    assert set(gone) == {"site-1", "site-3"}
    assert all(gone.values())


def test_four_agents_scaled_to_twelve(start: Callable[..., Stack]) -> None:
    stack = running(start(COSPAN_AGENTS=4, COSPAN_ROUNDS=400, **PACED))
    stack.up("--scale", "agent=12")
    check(stack, rounds=400, agents=12)
    sites = [line.split("agent joined: ")[1] for line in stack.said() if "agent joined" in line]
    assert sorted(sites) == sorted(f"site-{index}" for index in range(12)), "every site once"
    counts = list(contributors(stack))
    assert (counts[0], counts[-1]) == (4, 12)


@pytest.mark.parametrize(
    ("what", "settings"),
    [
        ("100 ms of delay", {"PROXY_DELAY": 0.1}),
        ("a slow reader", {"PROXY_RATE": 1000}),
    ],
)
def test_something_slow_in_the_path(start: Callable[..., Stack], what: str, settings: dict[str, object]) -> None:
    """It costs time and nothing else: the same bits as in one process."""
    stack = start(
        COSPAN_AGENTS=2,
        COSPAN_ROUNDS=40,
        COSPAN_COORDINATOR="proxy:15051",
        PROXIES=1,
        **settings,
    )
    check(stack, rounds=40, agents=2)
    assert min(contributors(stack)) == 2, what
    assert stack.result()["basis_sha256"] == undisturbed(2, 40)
    seconds = [float(row["seconds"]) for row in stack.rounds()]
    assert sum(seconds) / len(seconds) > 0.1, "nothing was slow"


def test_a_network_that_loses_packets(start: Callable[..., Stack], client: DockerClient, tools: str) -> None:
    """5 % of what two of three agents send and receive."""
    stack = start(COSPAN_AGENTS=3, COSPAN_ROUNDS=100, PACE_SECONDS=0.008)
    lossy = stack.containers("agent")[:2]
    for agent in lossy:
        for chain in ("INPUT", "OUTPUT"):
            client.containers.run(
                tools,
                [
                    "iptables",
                    "-A",
                    chain,
                    "-m",
                    "statistic",
                    "--mode",
                    "random",
                    "--probability",
                    "0.05",
                    "-j",
                    "DROP",
                ],
                name=f"{stack.project}-loss-{chain.lower()}-{agent.short_id}",
                network_mode=f"container:{agent.id}",
                cap_add=["NET_ADMIN"],
                remove=True,
            )
    check(stack, rounds=100, agents=3)
    assert min(contributors(stack)) == 3
    assert stack.result()["basis_sha256"] == undisturbed(3, 100)
