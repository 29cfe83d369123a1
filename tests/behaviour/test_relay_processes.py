"""Relays as processes: a whole fleet behind two of them, and what follows when a process of it is killed."""

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from behaviour.command import TOY, UNHURRIED, cospan, ended, in_this_process, line_of, result_of, started
from stored import NAME

from cospan.server.storage.reader import read_reports, read_state
from cospan.wire.files.npz import load_npz

SIZE = ("--agents", "6", "--rank", "1", "--seed", "4")
SESSION_TIMEOUT = "20"
"""Longer than a relay takes to be started again, on a machine that has other things to do as well."""


@contextlib.contextmanager
def coordinating(
    folder: Path, *more: str, port: str = "0", session_timeout: str = SESSION_TIMEOUT
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A coordinator of the run in `folder`/run, and its address."""
    said = ("coordinator", "--workload", UNHURRIED, *SIZE, "--run-folder", "run", "--port", port, "--json", *more)
    said += ("--session-timeout-seconds", session_timeout)
    with started(*said, cwd=folder) as process:
        yield process, json.loads(line_of(process, '"listening"'))["address"]


@contextlib.contextmanager
def relaying(folder: Path, upstream: str, port: str = "0") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A relay of three agents, and its address."""
    said = ("relay", "--upstream", upstream, "--agents", "3", "--port", port, "--json")
    with started(*said, cwd=folder) as process:
        yield process, json.loads(line_of(process, '"listening"'))["address"]


@contextlib.contextmanager
def agents(folder: Path, address: str, ids: str) -> Iterator[list[subprocess.Popen[str]]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(started("agent", UNHURRIED, "--id", name, "--coordinator", address, cwd=folder))
            for name in ids
        ]


def port_of(address: str) -> str:
    return address.rpartition(":")[2]


def rounds_said(coordinator: subprocess.Popen[str], count: int) -> int:
    """The round that a coordinator reports after that many more lines."""
    told: dict[str, Any] = {}
    for _ in range(count):
        told = json.loads(line_of(coordinator, '"round", '))
    return int(told["round"])


def run_behind_two_relays(folder: Path, *options: str) -> None:
    """A run of six agents behind two relays, to its end."""
    with (
        coordinating(folder, *options) as (coordinator, address),
        relaying(folder, address) as (first, low),
        relaying(folder, address) as (second, high),
        agents(folder, low, "012") as left,
        agents(folder, high, "345") as right,
    ):
        for process in (*left, *right, first, second, coordinator):
            assert ended(process)[0] == 0


def run_with_a_killed_relay(folder: Path, rounds: int, *options: str) -> None:
    """A run of three agents beside a relay of three, which is killed and started again, to its end."""
    with (
        coordinating(folder, "--rounds", str(rounds), *options) as (coordinator, address),
        agents(folder, address, "345") as beside,
        contextlib.ExitStack() as stack,
    ):
        relay, low = stack.enter_context(relaying(folder, address))
        behind = stack.enter_context(agents(folder, low, "012"))
        assert rounds_said(coordinator, 1) < rounds
        relay.kill()
        relay.wait()
        again, _ = stack.enter_context(relaying(folder, address, port_of(low)))
        for process in (*beside, *behind, again, coordinator):
            assert ended(process)[0] == 0


def test_six_agents_behind_two_relays_come_to_what_they_come_to_without(tmp_path: Path) -> None:
    rounds = ("--rounds", "60")
    run_behind_two_relays(tmp_path, *rounds)
    code, _, _ = cospan("run", TOY, *SIZE, *rounds, "--in-process", "--output", "whole", "--quiet", cwd=tmp_path)
    assert code == 0
    assert result_of(tmp_path / "run")["rounds"] == 60
    found, whole = (load_npz(tmp_path / name / "basis.npz", "a basis")["basis"] for name in ("run", "whole"))
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-12)
    assert [report.contributors for report in read_reports(tmp_path / "run" / NAME)] == [6] * 60


def test_an_agent_that_is_killed_behind_a_relay_is_named_in_the_runs_status(tmp_path: Path) -> None:
    with (
        coordinating(tmp_path, "--rounds", "0", session_timeout="8") as (coordinator, address),
        relaying(tmp_path, address) as (relay, low),
        agents(tmp_path, low, "012") as behind,
        agents(tmp_path, address, "345"),
    ):
        rounds_said(coordinator, 2)
        behind[1].kill()
        gone = json.loads(line_of(relay, '"agent-gone"'))
        assert gone["agents"] == ["site-1"]
        assert "did not come back for 8 s" in gone["message"]
        before = rounds_said(coordinator, 1)
        assert rounds_said(coordinator, 2) > before
        code, out, _ = cospan("status", "--coordinator", address, "--json", cwd=tmp_path)
        assert code == 0
        told = {agent["id"]: agent for agent in json.loads(out)["agents"]}
        assert {name for name, agent in told.items() if agent["phase"] == "gone"} == {"site-1"}
        assert told["site-1"]["gone_cause"] == "its process joined again without site-1"


def test_a_relay_that_is_killed_and_started_again_goes_on_and_nobody_is_given_up(tmp_path: Path) -> None:
    run_with_a_killed_relay(tmp_path, 120)
    reports = list(read_reports(tmp_path / "run" / NAME))
    assert [report.closed_round for report in reports] == list(range(120))
    assert {report.contributors for report in reports} == {6}
    assert read_state(tmp_path / "run" / NAME, check=True).finish_cause == "rounds-reached"


def test_a_coordinator_that_is_killed_behind_relays_goes_on_and_no_round_is_lost(tmp_path: Path) -> None:
    rounds = ("--rounds", "120")
    with contextlib.ExitStack() as stack:
        coordinator, address = stack.enter_context(coordinating(tmp_path, *rounds))
        first, low = stack.enter_context(relaying(tmp_path, address))
        second, high = stack.enter_context(relaying(tmp_path, address))
        left = stack.enter_context(agents(tmp_path, low, "012"))
        right = stack.enter_context(agents(tmp_path, high, "345"))
        rounds_said(coordinator, 2)
        coordinator.send_signal(signal.SIGKILL)
        coordinator.wait()
        again, _ = stack.enter_context(coordinating(tmp_path, *rounds, port=port_of(address)))
        for process in (*left, *right, first, second, again):
            assert ended(process)[0] == 0
    state = read_state(tmp_path / "run" / NAME, check=True)
    assert (state.rounds, state.finish_cause, state.incarnation) == (120, "rounds-reached", 2)
    reports = list(read_reports(tmp_path / "run" / NAME))
    assert [report.closed_round for report in reports] == list(range(120))
    assert {report.contributors for report in reports} == {6}
    code, _, _ = cospan("run", TOY, *SIZE, *rounds, "--in-process", "--output", "whole", "--quiet", cwd=tmp_path)
    assert code == 0
    found, whole = (load_npz(tmp_path / name / "basis.npz", "a basis")["basis"] for name in ("run", "whole"))
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "upstream is not set; name the coordinator with --upstream HOST:PORT"),
        (("--upstream", "here"), "upstream is 'here' in --upstream; it must be HOST:PORT"),
        (
            ("--upstream", "127.0.0.1:1", "--level", "6"),
            "level is '6' in --level; it must be a whole number, 1 to 5",
        ),
        (("--upstream", "127.0.0.1:1", "--host", "0.0.0.0"), "which other machines can reach, and there is no TLS"),
        (("--upstream", "127.0.0.1:1", "--upstream-tls-cert", "x.pem"), "tls"),
    ],
)
def test_a_wrong_use_gets_one_sentence(
    arguments: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_this_process("relay", *arguments) == 2
    assert sentence in capfd.readouterr().err
