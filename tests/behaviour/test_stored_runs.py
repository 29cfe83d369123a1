"""Stored runs as processes: a disk that is full, two coordinators of one run, and observers of a live run."""

import contextlib
import json
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from behaviour.command import TOY, cospan, ended, in_this_process, line_of, result_of, started
from stored import NAME, contents

from cospan.core.specification import basis_digest
from cospan.server.storage.reader import read_basis, read_reports, read_state
from cospan.wire.files.npz import load_npz

SIZE = ("--agents", "2", "--rank", "1", "--seed", "4", "--session-timeout-seconds", "5")


@contextlib.contextmanager
def coordinating(folder: Path, port: str = "0", *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A coordinator of the run in `folder`/run, and its address."""
    arguments = ("coordinator", "--workload", TOY, *SIZE, "--run-folder", "run", "--port", port, "--json", *more)
    with started(*arguments, cwd=folder) as process:
        yield process, json.loads(line_of(process, '"listening"'))["address"]


@contextlib.contextmanager
def both_agents(folder: Path, address: str) -> Iterator[list[subprocess.Popen[str]]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(started("agent", TOY, "--id", name, "--coordinator", address, cwd=folder))
            for name in "01"
        ]


def round_said(coordinator: subprocess.Popen[str]) -> dict[str, Any]:
    """The next round that a coordinator tells of."""
    told: dict[str, Any] = json.loads(line_of(coordinator, '"round", '))
    return told


def test_a_full_disk_ends_the_coordinator_and_with_room_the_run_has_the_bits_it_would_have_had(
    tmp_path: Path,
) -> None:
    rounds = ("--rounds", "500")
    with coordinating(tmp_path, "0", *rounds) as (coordinator, address), both_agents(tmp_path, address) as agents:
        round_said(coordinator)
        resource.prlimit(coordinator.pid, resource.RLIMIT_FSIZE, (1, 1))
        code, _, err = ended(coordinator)
        assert code == 1
        assert "cospan: the run was left as it was stored: cannot store the run in run/coordinator.sqlite: " in err
        assert "what was stored before is untouched: check the disk, and start the coordinator again" in err
        stored = read_state(tmp_path / "run" / NAME, check=True)
        assert 0 < stored.rounds < 500
        assert stored.finish_cause is None
        with coordinating(tmp_path, address.rpartition(":")[2], *rounds) as (again, _):
            assert json.loads(line_of(again, '"resuming"'))["rounds"] == stored.rounds
            assert ended(again)[0] == 0
        for agent in agents:
            assert ended(agent)[0] == 0
    state = read_state(tmp_path / "run" / NAME, check=True)
    assert (state.rounds, state.finish_cause, state.incarnation) == (500, "rounds-reached", 2)
    assert [report.closed_round for report in read_reports(tmp_path / "run" / NAME)] == list(range(500))
    code, _, _ = cospan("run", TOY, *SIZE, *rounds, "--in-process", "--output", "whole", "--quiet", cwd=tmp_path)
    assert code == 0
    digest = result_of(tmp_path / "whole")["basis_sha256"]
    assert digest == result_of(tmp_path / "run")["basis_sha256"]
    assert digest == basis_digest(read_basis(tmp_path / "run" / NAME).basis)


def test_agents_go_on_from_a_store_that_was_brought_back_from_a_copy(tmp_path: Path) -> None:
    """The copy is older in rounds and in incarnation than what the agents have met; they are not started again."""
    store = tmp_path / "run" / NAME
    (tmp_path / "kept").mkdir()

    def served(port: str, *, end: signal.Signals) -> str:
        with coordinating(tmp_path, port) as (coordinator, address):
            while round_said(coordinator)["contributors"] < 2:
                pass
            coordinator.send_signal(end)
            coordinator.communicate()
        return address

    arguments = ("agent", TOY, "--coordinator", "", "--output", "kept", "--progress-timeout-seconds", "60")
    with contextlib.ExitStack() as stack:
        agents = list[subprocess.Popen[str]]()

        def join(address: str) -> None:
            for name in "01":
                words = [address if word == "" else word for word in (*arguments, "--id", name)]
                agents.append(stack.enter_context(started(*words, cwd=tmp_path)))

        with coordinating(tmp_path) as (coordinator, address):
            join(address)
            round_said(coordinator)
            coordinator.send_signal(signal.SIGTERM)
            assert ended(coordinator)[0] == 75
        port = address.rpartition(":")[2]
        copied, copy = read_state(store, check=True), store.read_bytes()
        served(port, end=signal.SIGTERM)
        served(port, end=signal.SIGKILL)
        lost = read_state(store)
        assert (lost.incarnation, lost.rounds > copied.rounds) == (3, True)
        for file in store.parent.glob(f"{NAME}*"):
            file.unlink()
        store.write_bytes(copy)
        served(port, end=signal.SIGINT)
        said = [ended(agent) for agent in agents]
    state = read_state(store, check=True)
    assert (state.run_id, state.incarnation, state.finish_cause) == (copied.run_id, 2, None)
    assert state.rounds > copied.rounds
    for code, out, err in said:
        assert code == 0, err
        learnt = int(out.rpartition(" rounds learnt")[0].rpartition(" ")[2])
        assert learnt > lost.rounds, "what an agent has learnt in rounds that are lost stays with it"


def test_observers_and_a_second_coordinator_of_a_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def listed() -> dict[str, Any]:
        assert in_this_process("runs", ".", "--json") == 0
        (line,) = json.loads(capfd.readouterr().out)
        assert isinstance(line, dict)
        return line

    with coordinating(tmp_path, "0", "--checkpoint-interval", "10") as (coordinator, address):
        before = listed()
        assert (before["state"], before["rounds"], before["process"]) == ("running", 0, str(coordinator.pid))
        code, _, err = cospan("coordinator", "--run-folder", "run", "--port", "0", cwd=tmp_path)
        assert code == 1
        assert f"another coordinator (process {coordinator.pid}) serves the run in run; end it first" in err
        with both_agents(tmp_path, address) as agents:
            round_said(coordinator)
            round_said(coordinator)
            seen = listed()
            assert (seen["state"], seen["agents"], seen["run_id"]) == ("running", 2, before["run_id"])
            assert seen["rounds"] > 10
            assert in_this_process("export", "run", "--output", "last.npz") == 0
            assert in_this_process("export", "run", "--round", "10", "--output", "tenth.npz") == 0
            assert in_this_process("export", "run", "--round", "11", "--output", "none.npz") == 1
            assert "has not kept the basis after 11 rounds; it keeps those of 0, 10, " in capfd.readouterr().err
            coordinator.send_signal(signal.SIGTERM)
            code, _, err = ended(coordinator)
            assert code == 75
            assert err.rstrip().endswith("resume with: cospan coordinator --run-folder run")
            for agent in agents:
                agent.kill()
    assert listed()["state"] == "resumable"
    last = load_npz(tmp_path / "last.npz", "a basis")
    assert seen["rounds"] <= int(last["round"]) <= read_state(tmp_path / "run" / NAME, check=True).rounds
    assert str(last["basis_sha256"]) == basis_digest(last["basis"])
    assert int(load_npz(tmp_path / "tenth.npz", "a basis")["round"]) == 10


@pytest.mark.parametrize("damage", ["cut short", "garbage"])
def test_a_coordinator_refuses_a_damaged_run_and_leaves_it(tmp_path: Path, damage: str) -> None:
    with coordinating(tmp_path) as (coordinator, _):
        coordinator.send_signal(signal.SIGTERM)
        assert ended(coordinator)[0] == 75
    store = tmp_path / "run" / NAME
    store.write_bytes(store.read_bytes()[:5000] if damage == "cut short" else b"garbage" * 1000)
    before = contents(tmp_path / "run")
    code, out, err = cospan("coordinator", "--run-folder", "run", "--port", "0", cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith("cospan: run/coordinator.sqlite cannot be read as a stored run: ")
    assert err.rstrip().endswith("it was left as it is: bring back a copy, or name another folder")
    assert contents(tmp_path / "run") == before
