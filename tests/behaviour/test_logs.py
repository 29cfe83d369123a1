"""Fleets that learn from logs, as people run them: commands, exit codes, bits, restarts, growing logs."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from stations import HOLES, MAPPING, STATIONS, errors_of, write_stations

from cospan.client.files.group_file import group_agents
from cospan.client.files.result_file import load_result
from cospan.client.logs.log_workload import LogFleet, log_fleet
from cospan.client.workloads.microgrids import FEATURES
from cospan.server.storage.reader import read_state
from cospan.simulation import Fleet
from cospan.wire.errors import RunFileError

SECONDS = 120.0


def cospan(*arguments: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "cospan.cli.main", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def test_twenty_stations_end_by_themselves_and_learn_what_their_rows_hold(tmp_path: Path) -> None:
    stations = write_stations(tmp_path / "stations")
    done = cospan(
        *("run", "--logs", "stations", "--mapping", "stations/fleet.toml", "--seed", "1"),
        *("--in-process", "--no-baseline", "--output", "run", "--json"),
        cwd=tmp_path,
    )
    assert json.loads(done.stdout)["finish_cause"] == "rounds-reached"
    for index, station in enumerate(stations):
        line = next(line for line in done.stderr.splitlines() if line.startswith(f"station-{index:02}: "))
        assert line.startswith(f"station-{index:02}: {len(station.transitions):,} transitions in ")
        assert "missing rows" in line
    assert "rows left out: 29 with a missing value" in done.stderr
    assert f"site-{HOLES[0]} has learnt all of its log" in done.stderr
    files = [load_result(tmp_path / "run/agents" / f"site-{index}.npz") for index in range(STATIONS)]
    assert [each.whole("steps") for each in files] == [len(each.transitions) for each in stations]
    own = errors_of([each.vector("weights", FEATURES.dim) for each in files])
    # In a process of its own: shapes are not checked there, which takes most of the time.
    theirs = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "stations.py"), str(json.loads(done.stdout)["rounds"])],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert np.median(own) <= 1.1 * float(theirs.stdout)


def test_logs_give_the_bits_of_their_environments(tmp_path: Path) -> None:
    cospan(
        *("export-logs", "microgrids", "--agents", "5", "--rounds", "8", "--seed", "3", "--output", "logs"),
        cwd=tmp_path,
    )
    done = cospan("run", "--mapping", "logs/fleet.toml", "--seed", "3", "--json", "--quiet", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["rounds"] == 8
    assert document["basis_sha256"] == Fleet("microgrids", agents=5, rounds=8, seed=3).run().basis_sha256


@pytest.mark.parametrize("name", ["queues", "acrobot"])
def test_so_do_those_of_other_workloads_as_csv(tmp_path: Path, name: str) -> None:
    arguments = ("--agents", "3", "--rounds", "5", "--seed", "2", "--format", "csv", "--output", "logs")
    cospan("export-logs", name, *arguments, cwd=tmp_path)
    learnt = Fleet.from_logs(tmp_path / "logs", tmp_path / "logs/fleet.toml", seed=2).run()
    assert learnt.basis_sha256 == Fleet(name, agents=3, rounds=5, seed=2).run().basis_sha256


def test_the_doctor_finds_what_is_wrong_and_nothing_is_learnt_from_it(tmp_path: Path) -> None:
    write_stations(tmp_path / "stations", stations=3, days=10)
    path = tmp_path / "stations/station-01.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("cost", "Cost", 1), encoding="utf-8")
    given = ("--logs", "stations", "--mapping", "stations/fleet.toml")
    said = cospan("doctor", *given, cwd=tmp_path, code=1).stdout
    assert "station-01.csv has no column 'cost' (is it 'Cost'?)" in said
    assert "ok      station-00" in said
    done = cospan("run", *given, "--in-process", cwd=tmp_path, code=2)
    assert "correct the mapping" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_logs_of_many_sites_share_a_few_processes(tmp_path: Path) -> None:
    write_stations(tmp_path / "stations", stations=3, days=6)
    shortest = tmp_path / "stations/station-00.csv"
    shortest.write_text("".join(shortest.read_text(encoding="utf-8").splitlines(keepends=True)[:50]), "utf-8")
    given = ("run", "--mapping", "stations/fleet.toml", "--seed", "1", "--no-baseline", "--json")
    alone = json.loads(cospan(*given, "--in-process", "--output", "alone", cwd=tmp_path).stdout)
    done = cospan(*given, "--processes", "2", "--output", "together", cwd=tmp_path)
    assert "site-0 has learnt all of its log" in done.stderr
    together = json.loads(done.stdout)
    assert sorted(path.name for path in (tmp_path / "together/agents").glob("group-*")) == [
        "group-0..0.npz",
        "group-1..2.npz",
    ]
    assert together["rounds"] == alone["rounds"]
    for ours, theirs in zip(together["per_agent"], alone["per_agent"], strict=True):
        assert (ours["id"], ours["label"], ours["mean_reward"]) == (
            theirs["id"],
            theirs["label"],
            theirs["mean_reward"],
        )
        files = [load_result(tmp_path / each / "agents" / f"{ours['id']}.npz") for each in ("together", "alone")]
        weights = [each.vector("weights", FEATURES.dim) for each in files]
        np.testing.assert_allclose(*weights, rtol=1e-6, atol=1e-9)
    # Their processes may be killed before they write files of agents.
    read = [each for path in sorted((tmp_path / "together/agents").glob("group-*")) for each in group_agents(path)]
    assert [each.text("agent_id") for each in read] == ["site-0", "site-1", "site-2"]


def test_frames_are_learnt_from_as_their_files_are(tmp_path: Path) -> None:
    import pandas

    write_stations(tmp_path, stations=3, days=20)
    frames = {path.stem: pandas.read_csv(path, parse_dates=["stamp"]) for path in sorted(tmp_path.glob("*.csv"))}
    learnt = Fleet.from_frames(frames, tmp_path / "fleet.toml", seed=1).run()
    assert learnt.basis_sha256 == Fleet.from_logs(tmp_path, tmp_path / "fleet.toml", seed=1).run().basis_sha256
    assert (
        LogFleet.of_frames(frames, tmp_path / "fleet.toml").reports[0].line
        == log_fleet(tmp_path / "fleet.toml").reports[0].line
    )


def test_agents_with_their_own_logs_join_a_coordinator_that_has_none(tmp_path: Path) -> None:
    write_stations(tmp_path / "stations", stations=3, days=10)
    start = [sys.executable, "-m", "cospan.cli.main"]
    coordinator = subprocess.Popen(
        [
            *(*start, "coordinator", "--workload", "log:stations/fleet.toml", "--agents", "3", "--rounds", "14"),
            *("--port", "0", "--seed", "1", "--run-folder", "run", "--json"),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    agents: list[subprocess.Popen[str]] = []
    try:
        assert coordinator.stdout is not None
        events = (json.loads(line) for line in coordinator.stdout)
        address = next(event["address"] for event in events if event["event"] == "listening")
        for index in range(3):
            log = f"stations/station-{index:02}.csv"
            agents.append(
                subprocess.Popen(
                    [
                        *(*start, "agent", "--log", log, "--mapping", "stations/fleet.toml", "--id", str(index)),
                        *("--coordinator", address, "--output", f"site-{index}.npz"),
                    ],
                    cwd=tmp_path,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        said = [agent.communicate(timeout=SECONDS)[0] for agent in agents]
        assert [agent.returncode for agent in agents] == [0, 0, 0]
        assert all("has learnt all of its log" in each for each in said)
        for _ in events:
            pass
        assert coordinator.wait(SECONDS) == 0
    finally:
        for process in (coordinator, *agents):
            process.kill()
            process.communicate()
    result = load_result(tmp_path / "site-1.npz")
    assert result.whole("steps") == log_fleet(tmp_path / "stations/fleet.toml").reports[1].transitions


def test_a_log_that_is_followed_is_waited_for_and_an_interrupt_keeps_what_was_learnt(tmp_path: Path) -> None:
    stations, more = tmp_path / "stations", tmp_path / "more"
    write_stations(more, stations=2, days=5)
    stations.mkdir()
    (stations / "fleet.toml").write_text(MAPPING, encoding="utf-8")
    lines = {path.name: path.read_text(encoding="utf-8").splitlines(keepends=True) for path in more.glob("*.csv")}
    for name, each in lines.items():
        (stations / name).write_text("".join(each[:60]), encoding="utf-8")
    follower = subprocess.Popen(
        [
            *(sys.executable, "-m", "cospan.cli.main", "run", "--logs", "stations", "--follow", "--no-baseline"),
            *("--mapping", "stations/fleet.toml", "--rounds", "0", "--output", "run", "--seed", "1", "--quiet"),
        ],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_rounds(tmp_path / "run", 2)
        for name, each in lines.items():
            with (stations / name).open("a", encoding="utf-8") as file:
                file.write("".join(each[60:]))
        wait_for_rounds(tmp_path / "run", 4)
        follower.send_signal(signal.SIGINT)
        assert follower.wait(SECONDS) == 75
    finally:
        follower.kill()
        follower.wait()
    learnt = load_result(tmp_path / "run/agents/site-0.npz")
    assert learnt.whole("steps") > 60
    assert learnt.text("chain_state"), "it can be continued"


def wait_for_rounds(folder: Path, rounds: int) -> None:
    """Waits until a run has stored this number of rounds."""
    deadline, never, store = time.monotonic() + SECONDS, threading.Event(), folder / "coordinator.sqlite"
    while time.monotonic() < deadline:
        with contextlib.suppress(RunFileError):
            if store.exists() and read_state(store).rounds >= rounds:
                return
        never.wait(0.2)
    raise AssertionError(f"the run has not come to {rounds} rounds")
