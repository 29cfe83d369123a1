"""`cospan doctor` against real ports and coordinators: each fault with its remedy, and nothing that hangs."""

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from behaviour.command import in_this_process
from runs import run, specification

from cospan.cli.diagnostics.findings import Finding, Grade
from cospan.cli.diagnostics.machine import of_port, of_versions
from cospan.cli.diagnostics.network import of_coordinator
from cospan.server.coordinator import Coordinator
from cospan.wire.address import Address


def grades(findings: Sequence[Finding]) -> dict[str, str]:
    return {finding.subject: finding.grade.value for finding in findings}


def test_this_machine_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_this_process("doctor", "--port", "0", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {"Python", "numpy", "grpcio", "BLAS", "SQLite", "runs", "port", "certificate"} <= {
        each["subject"] for each in found
    }
    assert not list(tmp_path.iterdir()), "it leaves nothing"


def test_a_fast_path_that_is_off_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "fast path" not in grades(of_versions())
    monkeypatch.setattr("cospan.cli.diagnostics.machine.ENABLED", frozenset())
    assert grades(of_versions())["fast path"] == Grade.NOTE.value


def test_a_port_in_use_is_found_with_whoever_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.listen()
        assert "another process listens" in of_port(Address("127.0.0.1", port), "--port")[0].found
    assert of_port(Address("127.0.0.1", port), "--port")[0].grade is Grade.GOOD


def test_a_coordinator_that_answers_is_well() -> None:
    async def look() -> Sequence[Finding]:
        async with Coordinator(specification()) as coordinator:
            return await of_coordinator(coordinator.address, None)

    found = run(look())
    assert grades(found) == {"coordinator": "ok", "protocol": "ok", "clock": "ok"}
    assert "tests, d = 4, r = 2, round 0" in found[0].found


def test_nobody_there_is_a_problem_with_a_remedy() -> None:
    found = run(of_coordinator("127.0.0.1:1", None))
    assert [finding.grade for finding in found] == [Grade.BAD]
    assert "check the address" in found[0].remedy


def test_a_peer_that_says_nothing_is_not_waited_for_without_end() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        found = run(of_coordinator(f"127.0.0.1:{mute.getsockname()[1]}", None, seconds=0.3))
    assert found[0].grade is Grade.BAD


def test_a_problem_is_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "COSPAN_COORDINATOR" not in os.environ
    assert in_this_process("doctor", "--port", "0", "--coordinator", "127.0.0.1:1") == 1
    assert "problem coordinator" in " ".join(capsys.readouterr().out.split())
    assert in_this_process("doctor", "--port", "x") == 2
