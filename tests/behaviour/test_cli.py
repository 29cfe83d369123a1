"""The command `cospan` from outside: real processes on free ports, and what they leave behind."""

import csv
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from behaviour.command import (
    ROOT,
    TINY,
    TOY,
    cospan,
    ended,
    in_this_process,
    line_of,
    result_of,
    started,
    wait_for_site,
)
from runs import SECONDS

from cospan.client.files.result_file import load_result
from cospan.core.specification import basis_digest
from cospan.wire.security import authority


def wait_for_end(descriptor: int) -> None:
    """Waits until a process that is no child of ours has ended."""
    ready, _, _ = select.select([descriptor], [], [], SECONDS)
    os.close(descriptor)
    assert ready, "the process continues"


# Runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_toys")
@pytest.mark.parametrize(("preset", "warm_up"), [("paper", "0"), ("paper", "4"), ("practical", "0")])
def test_the_same_bits_over_the_network_again_and_in_process(tmp_path: Path, preset: str, warm_up: str) -> None:
    code, out, err = cospan(
        "run",
        "toy_workload:workload",
        *TINY,
        "--seed",
        "3",
        "--preset",
        preset,
        "--warm-up-rounds",
        warm_up,
        "--output",
        "a",
        "--json",
        cwd=tmp_path,
        COSPAN_PICTURES="1",
    )
    assert code == 0, err
    first = json.loads(out)
    assert first == result_of(tmp_path / "a")
    again = ("run", "--spec", "a/spec.toml", "--quiet")
    folders = ["a", "c"]
    if warm_up == "0":  # the second run over the network shows the same with a warm-up
        code, out, err = cospan(*again, "--output", "b", cwd=tmp_path, COSPAN_FAST_PATH="0")
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == "b"
        folders.append("b")
    assert in_this_process(*again, "--output", "c", "--in-process") == 0
    digests = {result_of(tmp_path / name)["basis_sha256"] for name in folders}
    assert digests == {first["basis_sha256"]}
    assert first["seed"] == 3
    assert first["preset"] == (preset if warm_up == "0" else None)
    assert first["method"]["warm_up_rounds"] == int(warm_up)
    check_folder(tmp_path / "a", first)
    assert not list((tmp_path / "c").glob("*.png")), "COSPAN_PICTURES is 0"
    specs = {(tmp_path / name / "spec.toml").read_text() for name in folders}
    assert len(specs) == 1


def check_folder(folder: Path, result: dict[str, Any]) -> None:
    """Every file of a finished run, and that they agree."""
    names = {"spec.toml", "result.json", "rounds.csv", "basis.npz", "agents", "log.jsonl", "convergence.png"}
    names |= {"launch.json", "sites.png"}
    stored = {"coordinator.sqlite", ".coordinator.sqlite.lock"}
    assert {path.name for path in folder.iterdir()} == names | stored
    with np.load(folder / "basis.npz", allow_pickle=False) as archive:
        assert basis_digest(archive["basis"]) == result["basis_sha256"]
    agents = [load_result(folder / "agents" / f"site-{index}.npz") for index in range(3)]
    errors = [agent.number("value_error") for agent in agents]
    assert result["value_error"] == pytest.approx(float(np.median(errors)), rel=1e-15)
    assert (result["agents"], result["rounds"], result["agent_steps"]) == (3, 20, 3 * 20 * 5)
    assert [agent["label"] for agent in result["per_agent"]] == ["ring 0", "ring 1", "ring 2"]
    with (folder / "rounds.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["round"]) for row in rows] == list(range(20))
    assert float(rows[-1]["value_error"]) == result["value_error"]
    assert float(rows[-1]["td_alone_error"]) == result["baselines"]["td_alone"]
    assert float(rows[-1]["subspace_error"]) == result["subspace_error"]
    assert sum(float(row["seconds"]) for row in rows) == pytest.approx(result["seconds"])
    for picture in ("convergence.png", "sites.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    for line in (folder / "log.jsonl").read_text().splitlines():
        assert {"time", "level", "logger", "message"} <= set(json.loads(line))


def test_killing_an_agent_does_not_end_the_run(tmp_path: Path, fifo: Path, no_matplotlib: str) -> None:
    variables = {"TOY_FIFO": str(fifo), "PYTHONPATH": no_matplotlib, "COSPAN_PICTURES": "1"}
    arguments = ("--agents", "3", "--rounds", "30", "--session-timeout-seconds", "5", "--output", "run")
    arguments += ("--agent-restarts", "0")
    with started("run", "toy_workload:stuck", *arguments, cwd=tmp_path, **variables) as process:
        os.kill(wait_for_site(fifo), signal.SIGKILL)
        code, out, err = ended(process)
    assert code == 3, err
    assert "site-1 failed: its process was ended by SIGKILL" in err
    assert "the run began with 3 agents and lost 1 of them: site-1" in err
    result = result_of(tmp_path / "run")
    assert (result["agents"], result["rounds"], result["finish_cause"]) == (2, 30, "rounds-reached")
    (gone,) = result["departures"]
    assert (gone["agent_id"], gone["round"]) == ("site-1", 2)
    assert f"gone: site-1 in round 2 ({gone['cause']})" in out
    assert "no pictures: matplotlib is not installed; pip install '.[plot]'" in err
    assert not (tmp_path / "run" / "convergence.png").exists()
    row = next(line for line in out.splitlines() if line.startswith("site-1 "))
    assert row.endswith("gone in round 2")
    assert not (tmp_path / "run" / "agents" / "site-1.npz").exists()


def test_an_agent_that_was_killed_is_started_again_and_the_run_comes_to_the_same_bits(
    tmp_path: Path, fifo: Path, no_matplotlib: str
) -> None:
    arguments = ("run", "toy_workload:signalling", "--agents", "3", "--rounds", "60", "--seed", "2", "--quiet")
    variables = {"TOY_FIFO": str(fifo), "PYTHONPATH": no_matplotlib}
    descriptor = os.open(fifo, os.O_RDWR)  # site 1 says twice where it is, and is read once
    try:
        with started(*arguments, "--output", "killed", cwd=tmp_path, **variables) as process:
            os.kill(wait_for_site(fifo), signal.SIGKILL)
            code, _, err = ended(process)
        assert code == 0, err
        assert "site-1: its process was ended by SIGKILL; it is started again" in err
        code, _, err = cospan(*arguments, "--output", "whole", cwd=tmp_path, **variables)
        assert code == 0, err
    finally:
        os.close(descriptor)
    killed, whole = result_of(tmp_path / "killed"), result_of(tmp_path / "whole")
    assert (killed["agents"], killed["departures"]) == (3, [])
    assert killed["basis_sha256"] == whole["basis_sha256"]


def test_an_interrupted_run_keeps_what_was_learnt(tmp_path: Path, fifo: Path, no_matplotlib: str) -> None:
    variables = {"TOY_FIFO": str(fifo), "PYTHONPATH": no_matplotlib}
    arguments = ("--agents", "2", "--rounds", "1000000", "--output", "run")
    with started("run", "toy_workload:signalling", *arguments, cwd=tmp_path, **variables) as process:
        wait_for_site(fifo)
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
    assert code == 75
    result = result_of(tmp_path / "run")
    assert result["finish_cause"] == "stopped"
    assert result["departures"] == []
    assert result["rounds"] >= 2
    assert f"the run ended after {result['rounds']} of 1000000 rounds: it was interrupted by SIGINT" in err
    assert err.rstrip().endswith("; resume with: cospan run --resume run")
    assert out.splitlines()[-1] == "run"
    assert load_result(tmp_path / "run" / "agents" / "site-0.npz").number("weights_count") >= result["rounds"]


@pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="waits for the end of processes that are not its children"
)
def test_no_process_outlives_a_parent_that_is_killed(tmp_path: Path, fifo: Path) -> None:
    arguments = ("--agents", "2", "--rounds", "0", "--output", "run")
    with started("run", "toy_workload:signalling", *arguments, cwd=tmp_path, TOY_FIFO=str(fifo)) as process:
        agent = os.pidfd_open(wait_for_site(fifo))
        process.kill()
    wait_for_end(agent)
    assert result_of(tmp_path / "run")["finish_cause"] == "stopped"


def test_a_run_whose_agents_all_die_ends_at_once(tmp_path: Path, no_matplotlib: str) -> None:
    code, out, err = cospan(
        "run", "toy_workload:ends_the_process", *TINY, "--output", "run", cwd=tmp_path, PYTHONPATH=no_matplotlib
    )
    assert code == 1
    assert "every agent process has ended; the last: site-" in err
    assert "ended with exit code 77" in err
    assert out.splitlines()[-1] == "run"
    assert result_of(tmp_path / "run")["finish_cause"] == "no-agents"


def test_an_agent_that_fails_before_its_first_round_is_done_ends_the_run(tmp_path: Path) -> None:
    code, out, err = cospan("run", "toy_workload:one_raises_at_once", *TINY, "--quiet", cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err == "cospan: the environment or policy of site-1 raised RuntimeError in step 0: the pump is on fire\n"
    assert list(tmp_path.iterdir()) == []


# Its parts ------------------------------------------------------------------------------------------------------


def test_a_coordinator_and_its_agents_each_started_alone(tmp_path: Path) -> None:
    run = ("--workload", "toy_workload:workload", "--agents", "2", "--rounds", "20", "--port", "0")
    with started("coordinator", *run, "--run-folder", "run", "--json", cwd=tmp_path) as coordinator:
        address = json.loads(line_of(coordinator, "listening"))["address"]
        code, out, _ = cospan("status", "--coordinator", address, cwd=tmp_path)
        assert code == 0
        assert "for agents to join: " in out
        taken = ("run", "toy_workload:workload", "--quiet", "--port", address.rpartition(":")[2])
        code, out, err = cospan(*taken, cwd=tmp_path)
        assert (code, out) == (2, "")
        assert f"cannot listen on {address}: Address already in use; end the program that listens there" in err
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["latest"]
        assert (tmp_path / "runs" / "latest").resolve() == tmp_path / "run"
        of_agent = ("agent", "toy_workload:workload", "--coordinator", address)
        with (
            started(*of_agent, "--id", "0", "--output", "zero.npz", "--no-baseline", cwd=tmp_path) as zero,
            started(*of_agent, "--index", "1", "--json", cwd=tmp_path) as one,
        ):
            assert ended(zero)[0] == 0
            code, out, _ = ended(one)
        assert ended(coordinator)[0] == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [lines[0]["event"], lines[-1]["event"]] == ["progress", "finished"]
    assert (lines[-1]["agent"], lines[-1]["rounds"], lines[-1]["label"]) == ("site-1", 20, "ring 1")
    assert 0.0 < lines[-1]["value_error"] < 1.5
    assert 0.0 < lines[-1]["td_alone_error"] < 1.5
    saved = load_result(tmp_path / "zero.npz")
    assert (saved.text("agent_id"), saved.td_alone_errors.size) == ("site-0", 0)
    result = result_of(tmp_path / "run")
    assert (result["rounds"], result["agents"], result["value_error"]) == (20, 2, None)
    assert len((tmp_path / "run" / "rounds.csv").read_text().splitlines()) == 21


def test_an_endless_coordinator_is_stopped_in_order(tmp_path: Path) -> None:
    arguments = ("coordinator", "--feature-dim", "3", "--rank", "1", "--port", "0")
    with (
        started(*arguments, cwd=tmp_path) as endless,
        started(*arguments, "--rounds", "9", cwd=tmp_path) as bounded,
    ):
        for process in (endless, bounded):
            line_of(process, "cospan coordinator listens on 127.0.0.1:")
            process.send_signal(signal.SIGTERM)
        assert ended(endless)[0] == 75
        code, _, err = ended(bounded)
    assert code == 75
    assert "the run ended after 0 rounds: the coordinator was stopped by SIGTERM" in err
    assert "without a run folder it cannot be resumed" in err


def test_a_coordinator_for_other_machines_takes_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    authority.make_authority(tmp_path / "certs", name="the fleet's", days=2)
    hosts = ("fleet.example.org", "127.0.0.1")
    authority.issue(tmp_path / "certs", "coordinator", uris=["cospan:coordinator"], hosts=hosts)
    authority.issue(tmp_path / "certs", "site-0..1", uris=["cospan:agents:site-0..1"])
    authority.issue(tmp_path / "certs", "admin", uris=["cospan:admin"])

    def shows(name: str) -> dict[str, str]:
        files = {"CERT": "cert.pem", "KEY": "key.pem", "CA": "ca.pem"}
        return {f"COSPAN_TLS_{key}": str(tmp_path / "certs" / name / file) for key, file in files.items()}

    arguments = ("--workload", TOY, "--agents", "2", "--port", "0", "--host", "0.0.0.0", "--json")
    with started("coordinator", *arguments, cwd=tmp_path, **shows("coordinator")) as coordinator:
        port = json.loads(line_of(coordinator, "listening"))["address"].rpartition(":")[2]
        there = ("--coordinator", f"127.0.0.1:{port}")
        with (
            started("agent", TOY, "--id", "0", *there, cwd=tmp_path, **shows("site-0..1")) as zero,
            started("agent", TOY, "--id", "1", *there, cwd=tmp_path, **shows("site-0..1")) as one,
        ):
            line_of(coordinator, '"round"')
            code, _, err = cospan("agent", TOY, "--id", "2", *there, cwd=tmp_path, **shows("site-0..1"))
            assert (code, "does not speak for 'site-2'" in err) == (1, True)
            code, _, err = cospan("status", *there, cwd=tmp_path)
            assert (code, "asks for a client certificate, and none is named" in err) == (1, True)
            assert cospan("status", *there, cwd=tmp_path, **shows("admin"))[0] == 0
            code, _, err = cospan("stop", *there, cwd=tmp_path, **shows("site-0..1"))
            assert (code, "needs a certificate for cospan:admin" in err) == (1, True)
            code, out, _ = cospan("stop", *there, "--cause", "it is late", cwd=tmp_path, **shows("admin"))
            assert (code, "is over after" in out) == (0, True)
            for agent in (zero, one):
                code, out, _ = ended(agent)
                assert (code, "it was stopped by cospan:admin: it is late" in out) == (0, True)
        code, _, err = ended(coordinator)
    assert code == 0, "a run without a last round is stopped as it should be"
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in err, "gRPC says why it has refused the handshake"


def test_help_is_quick_and_shows_an_example(tmp_path: Path) -> None:
    code, out, _ = cospan("agent", "--help", cwd=tmp_path, COLUMNS="200")
    assert code == 0
    assert "Example: cospan agent queues --id site-7" in out
    listing = "import cospan.cli.main, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"numpy", "grpc", "gymnasium", "matplotlib", "pydantic", "asyncio"}.intersection(loaded)


# The example ----------------------------------------------------------------------------------------------------


def test_the_example_runs_as_it_says(tmp_path: Path) -> None:
    """`examples/my_own_environment.py`, copied into an empty folder, with the command in its first lines."""
    shutil.copy(ROOT / "examples" / "my_own_environment.py", tmp_path)
    arguments = ("--agents", "3", "--rounds", "30", "--quiet", "--output", "shops")
    code, out, err = cospan("run", "my_own_environment:shops", *arguments, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "shops"
    assert [agent["id"] for agent in result_of(tmp_path / "shops")["per_agent"]] == ["site-0", "site-1", "site-2"]
