"""What `cospan doctor` finds: each fault with its remedy, and nothing that hangs."""

import json
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from behaviour.test_cli import in_this_process
from runs import run, specification
from unit.wire.security.test_tls import issued

from cospan.cli.diagnostics import machine, network
from cospan.cli.diagnostics.findings import Finding, Grade, bad, finding_lines, good, note
from cospan.cli.diagnostics.machine import of_folder, of_port
from cospan.cli.diagnostics.network import of_clock, of_coordinator, of_tls
from cospan.server.coordinator import Coordinator
from cospan.wire.address import Address
from cospan.wire.errors import InvalidValueError
from cospan.wire.security import authority
from cospan.wire.security.tls import TlsFiles


def grades(findings: Sequence[Finding]) -> dict[str, str]:
    return {finding.subject: finding.grade.value for finding in findings}


def test_findings_are_told_with_their_remedies() -> None:
    lines = finding_lines(
        [good("Python", "3.12"), note("BLAS", "8 threads", "one is enough"), bad("x", "no", "do")]
    )
    assert lines == [
        "ok      Python  3.12",
        "note    BLAS    8 threads",
        "                → one is enough",
        "problem x       no",
        "                → do",
        "",
        "1 problem in 3 findings",
    ]


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


def test_a_library_that_is_too_old_or_missing_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_LEAST", {"numpy": (99, 0), "no-such-thing": (1,)})
    monkeypatch.setattr(machine, "_EXTRAS", {"no-such-thing": "tls"})
    found = {finding.subject: finding for finding in machine.of_versions()}
    assert found["numpy"].remedy == "pip install --upgrade 'numpy>=99.0'"
    assert found["no-such-thing"].grade is Grade.BAD
    assert found["extras"].grade is Grade.NOTE


def test_a_folder_without_room_or_rights_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_folder(tmp_path / "not" / "yet")[0].grade is Grade.GOOD
    (tmp_path / "file").touch()
    assert of_folder(tmp_path / "file" / "runs")[0].found.endswith("is a file")
    monkeypatch.setattr(machine, "_LEAST_FREE", 2**80)
    assert "MiB are free" in of_folder(tmp_path)[0].found


def test_a_port_in_use_is_found_with_whoever_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.listen()
        assert "somebody listens" in of_port(Address("127.0.0.1", port), "--port")[0].found
    assert of_port(Address("127.0.0.1", port), "--port")[0].grade is Grade.GOOD


def test_certificates_are_looked_at(tmp_path: Path) -> None:
    authority.make_authority(tmp_path, name="the fleet's", days=30)
    assert grades(of_tls(issued(tmp_path, days=20), None)) == {"certificate": "ok", "names": "ok"}
    assert grades(of_tls(issued(tmp_path, "site-8", days=1), None))["certificate"] == "note"
    expired = of_tls(issued(tmp_path, "site-9", days=-0.001), None)
    assert expired[0].grade is Grade.BAD
    assert "cospan certs renew" in expired[0].remedy
    one, other = issued(tmp_path, "site-1"), issued(tmp_path, "site-2")
    with pytest.raises(InvalidValueError, match="is not the key of the certificate"):
        of_tls(TlsFiles(one.certificate, other.key, one.authority), None)
    assert of_tls(None, "example.org:1")[0].grade is Grade.NOTE
    assert of_tls(None, "127.0.0.1:1")[0].grade is Grade.GOOD


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


def test_somebody_who_says_nothing_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_ANSWER_SECONDS", 0.3)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        begun = time.monotonic()
        found = run(of_coordinator(f"127.0.0.1:{mute.getsockname()[1]}", None))
    assert found[0].grade is Grade.BAD
    assert time.monotonic() - begun < 15.0


def test_clocks_are_compared_within_what_an_answer_tells() -> None:
    assert of_clock(1000.0, 999.0, 2.0).grade is Grade.GOOD
    assert of_clock(1100.0, 999.0, 2.0).found == "the coordinator's is 100 s ahead of this one"
    assert of_clock(900.0, 999.0, 2.0).found == "the coordinator's is 100 s behind this one"
    assert of_clock(1012.0, 1000.0, 8.0).grade is Grade.GOOD, "it may have been read at any time of these 8 s"
    assert of_clock(0.0, 999.0, 2.0).grade is Grade.NOTE


def test_a_problem_is_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "COSPAN_COORDINATOR" not in os.environ
    assert in_this_process("doctor", "--port", "0", "--coordinator", "127.0.0.1:1") == 1
    assert "problem coordinator" in " ".join(capsys.readouterr().out.split())
    assert in_this_process("doctor", "--port", "x") == 2
