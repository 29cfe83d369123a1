"""`cospan bench` from outside: a coordinator, its ceiling, agents in processes of their own, and no trace."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from cospan.benchmarks import cost_growth
from cospan.benchmarks.tools import processes

SECONDS = 180.0
"""Until then everything that a test waits for has happened, or it fails."""


def bench(tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COSPAN_")}
    return subprocess.run(
        [sys.executable, "-m", "cospan.cli.main", "bench", *arguments],
        cwd=tmp_path,
        env={**kept, "NO_COLOR": "1", "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not reached():
        assert time.monotonic() < deadline, "what was waited for did not come"
        threading.Event().wait(0.05)


def end(process: "subprocess.Popen[str]") -> None:
    """Kills a process, if it still runs, and all that it has started, which would go on without it."""
    for pid in [*processes.family(process.pid)] if process.poll() is None else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("agents", [1, 3, 10])
def test_rounds_of_the_coordinator_and_of_its_ceiling(tmp_path: Path, agents: int) -> None:
    """One process, one process an agent, and several agents a process."""
    size = ("--agents", str(agents), "--feature-dim", "6", "--rank", "2", "--seconds", "0.3")
    done = bench(tmp_path, "rounds", *size, "--json", "--output", "rounds.json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert json.loads((tmp_path / "rounds.json").read_text(encoding="utf-8")) == document
    assert (document["benchmark"], document["agents"], len(document["cases"])) == ("rounds", agents, 1)
    assert document["ratio_low"] <= document["ratio_to_ceiling"] <= document["ratio_high"]
    assert 0.0 < document["p50_ms"] <= document["p99_ms"]
    assert document["rounds"] >= document["blocks"] >= 2
    assert document["bytes_per_agent_round"] > 2 * 6 * 2 * 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rounds.json"], "nothing else is left"


def test_costs_that_grow_with_groups() -> None:
    document = cost_growth.benchmark([cost_growth.groups((4, 40, 400), (6, 2))], 0.05, lambda _: None).document({})
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    cases = cast(list[dict[str, Any]], document["cases"])
    assert [(case["agents"], case["streams"]) for case in cases] == [(4, 2), (40, 2), (400, 2)]
    for case in cases:
        assert case["round_ms"] > 0.0
        assert case["time_low"] < case["time_exponent"] < case["time_high"]
        assert case["memory_mib"] is None or 1.0 < case["memory_mib"] < 1000.0
        assert case["rounds"] >= 3


def test_time_to_accuracy_of_the_same_run_over_the_network_and_in_process(tmp_path: Path) -> None:
    few = ("--agents", "2", "--value-error", "0.9", "--rounds", "5", "--turns", "1")
    done = bench(tmp_path, "time-to-accuracy", "queues", *few, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert (document["benchmark"], document["workload"], document["agents"]) == ("time-to-accuracy", "queues", 2)
    assert document["reached"] <= document["value_error"] == 0.9
    assert 1 <= document["rounds"] <= 5
    for way in ("seconds", "in_process_seconds"):
        assert 0.0 < document[way.replace("seconds", "learning_seconds")] < document[way]
    assert document["ratio_to_in_process"] == document["seconds"] / document["in_process_seconds"]
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_cpu_of_an_agent_until_its_first_gradient(tmp_path: Path) -> None:
    done = bench(tmp_path, "agent-start", "queues", "--turns", "1", "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert (document["benchmark"], document["workload"], document["turns"]) == ("agent-start", "queues", 1)
    assert 0.0 < document["imports_cpu_seconds"] < document["cpu_seconds"] == document["most_cpu_seconds"]
    assert document["ratio_to_imports"] == document["cpu_seconds"] / document["imports_cpu_seconds"]
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_updates_in_groups_and_by_single_agents(tmp_path: Path) -> None:
    size = ("--agents", "12", "--group", "6", "--feature-dim", "5", "--rank", "2", "--seconds", "0.2")
    done = bench(tmp_path, "groups", *size, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert (document["agents"], document["group"]) == (12, 6)
    assert document["ratio_low"] <= document["ratio_to_single"] <= document["ratio_high"]
    assert document["blocks"] >= 3
    assert document["updates_per_second"] > document["single_updates_per_second"], (
        "two streams are less than twelve"
    )
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_a_whole_fleet(tmp_path: Path) -> None:
    few = ("--agents", "6", "--processes", "2", "--rounds", "4")
    done = bench(tmp_path, "fleet", "synthetic", *few, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert (document["agents"], document["processes"], document["rounds"]) == (6, 2, 4)
    assert document["rounds_per_second_low"] <= document["rounds_per_second"] <= document["rounds_per_second_high"]
    assert document["memory_mib"] > 100.0, "three processes with numpy and gRPC"
    assert not list(tmp_path.iterdir()), "nothing is left"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not tell who started whom")
def test_ctrl_c_ends_a_fleet_and_leaves_nothing(tmp_path: Path) -> None:
    endless = ("fleet", "synthetic", "--agents", "2", "--processes", "2", "--rounds", "1000000")
    with subprocess.Popen(
        [sys.executable, "-m", "cospan.cli.main", "bench", *endless],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_until(
                lambda: len(list(processes.family(process.pid))) >= 4 and bool(list(tmp_path.rglob("rounds.csv")))
            )
            started = list(processes.family(process.pid))[1:]
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=SECONDS)
        finally:
            end(process)
    assert (process.returncode, said[0], said[1].splitlines()[-1]) == (1, "", "cospan: interrupted")
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))
    assert not list(tmp_path.iterdir()), "nothing is left"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not tell who started whom")
def test_ctrl_c_in_a_terminal_while_the_processes_start_is_one_sentence(tmp_path: Path) -> None:
    """A terminal sends it to all of them, also to those that are still importing."""
    with subprocess.Popen(
        [sys.executable, "-m", "cospan.cli.main", "bench", "rounds", "--agents", "3", "--quiet"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            wait_until(lambda: len(list(processes.family(process.pid))) >= 4)
            started = list(processes.family(process.pid))[1:]
            os.killpg(process.pid, signal.SIGINT)
            said = process.communicate(timeout=SECONDS)
        finally:
            end(process)
    assert (process.returncode, *said) == (1, "", "cospan: interrupted\n")
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_a_value_error_that_is_not_reached(tmp_path: Path) -> None:
    few = ("--agents", "2", "--value-error", "0", "--rounds", "2", "--turns", "1", "--quiet")
    done = bench(tmp_path, "time-to-accuracy", "queues", *few)
    assert (done.returncode, done.stdout) == (1, "")
    assert "at best in 2 rounds; ask for that or for more rounds" in done.stderr


def test_peers_that_are_not_installed_are_left_out(tmp_path: Path) -> None:
    """Neither without an environment nor with one that has nothing in it."""
    none = bench(tmp_path, "peers", "--environment", "none", "--agents", "2", "--json", "--quiet")
    assert (none.returncode, none.stderr) == (0, "")
    cases = json.loads(none.stdout)["cases"]
    assert [case["peer"].partition(",")[0] for case in cases] == ["MPI", "Ray", "Ray", "Flower", "Flower"]
    sentence = f"left out: there is no environment '{tmp_path / 'none'}'; `make bench-peers` installs it"
    assert {case["remark"] for case in cases} == {sentence}
    venv.create(tmp_path / "bare", symlinks=True)
    bare = bench(tmp_path, "peers", "--environment", "bare", "--agents", "2", "--json", "--quiet")
    assert bare.returncode == 0, bare.stderr
    for case in json.loads(bare.stdout)["cases"]:
        assert "is not installed in" in case["remark"]
        assert case["ratio_to_peer"] is None


def test_a_table_for_people(tmp_path: Path) -> None:
    done = bench(tmp_path, "orthonormalise", "--shape", "12x3", "--seconds", "0")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "numpy" in lines[0], "the machine"
    assert lines[2].split()[:3] == ["d", "r", "condition"]
    assert lines[3].split()[:3] == ["12", "3", "1.5"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("rounds", "--feature-dim", "2", "--rank", "3"), "rank is 3; it must be 1 to feature_dim = 2"),
        (("encodings", "--shape", "3"), "--shape is '3'; it must be DxR with 1 ≤ R ≤ D, as 65536x32"),
        (("cost-growth", "--series", "x"), "--series is 'x'; it must be one of streams, groups, numbers"),
        (("groups", "--agents", "3", "--group", "5"), "--group is 5; it must be 2 to the number of agents, 3"),
        (("fleet", "--agents", "1"), "--processes is 2; it must be 1 to the number of agents, 1"),
        (("learner", "--output", "none/x.json"), "there is no folder 'none' for --output; create it first"),
    ],
)
def test_wrong_use_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    done = bench(tmp_path, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"cospan: {sentence}\n")
