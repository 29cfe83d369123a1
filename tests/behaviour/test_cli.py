"""The command `cospan` from outside: real processes on free ports, and what they leave behind.

What a wrong use says is tested in this process: there are many ways to be wrong, and a process costs a second.
"""

import contextlib
import csv
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cospan.cli import main as entry
from cospan.client.files.result_file import load_result
from cospan.core.specification import basis_digest
from cospan.wire.security import authority

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECONDS = 60.0
"""Until then everything that a test waits for has happened, or it fails."""

TOY = "toy_workload:workload"
TINY = ("--agents", "3", "--rounds", "20", "--rank", "1")
"""As few agents as are not warned of."""


# Processes ------------------------------------------------------------------------------------------------------


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COSPAN_")}
    return {**kept, "PYTHONPATH": str(HERE), "NO_COLOR": "1", **more}


@contextlib.contextmanager
def started(*arguments: str, cwd: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A `cospan` process; it is killed where the test has not seen its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cospan.cli.main", *arguments],
        cwd=cwd,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def no_matplotlib(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python path of an installation without matplotlib; a run is also a second shorter there."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "matplotlib.py").write_text("raise ImportError('not installed')\n")
    return os.pathsep.join((str(HERE), str(folder)))


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a process that ends by itself."""
    out, err = process.communicate(timeout=SECONDS)
    assert "Traceback" not in out + err
    return process.returncode, out, err


def cospan(*arguments: str, cwd: Path, **more: str) -> tuple[int, str, str]:
    with started(*arguments, cwd=cwd, **more) as process:
        return ended(process)


def line_of(process: subprocess.Popen[str], text: str) -> str:
    """The next line of standard output that holds `text`."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"it ended without saying {text!r}: {process.communicate()}")


@pytest.fixture
def _toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    monkeypatch.setattr(os, "environ", environment())


def in_this_process(*arguments: str) -> object:
    """The exit code of a command that runs in this process."""
    with pytest.raises(SystemExit) as end:
        entry.main(list(arguments))
    return end.value.code


def result_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return document


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A pipe through which a site of the toy workload says that it has come to its mark."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def wait_for_site(fifo: Path) -> int:
    """Waits until the site says so; the number of its process."""
    descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        ready, _, _ = select.select([descriptor], [], [], SECONDS)
        assert ready, "the site never came to its mark"
        os.set_blocking(descriptor, True)
        return int(os.read(descriptor, 100))
    finally:
        os.close(descriptor)


def wait_for_end(descriptor: int) -> None:
    """Waits until a process that is no child of ours has ended."""
    ready, _, _ = select.select([descriptor], [], [], SECONDS)
    os.close(descriptor)
    assert ready, "the process continues"


# Runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_toys")
@pytest.mark.parametrize("warm_up", ["0", "4"])
def test_the_same_bits_over_the_network_again_and_in_process(tmp_path: Path, warm_up: str) -> None:
    code, out, err = cospan(
        "run",
        "toy_workload:workload",
        *TINY,
        "--seed",
        "3",
        "--preset",
        "paper",
        "--warm-up-rounds",
        warm_up,
        "--output",
        "a",
        "--json",
        cwd=tmp_path,
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
    assert first["preset"] == ("paper" if warm_up == "0" else None)
    assert first["method"]["warm_up_rounds"] == int(warm_up)
    check_folder(tmp_path / "a", first)
    specs = {(tmp_path / name / "spec.toml").read_text() for name in folders}
    assert len(specs) == 1


def check_folder(folder: Path, result: dict[str, Any]) -> None:
    """Every file of a finished run, and that they agree."""
    names = {"spec.toml", "result.json", "rounds.csv", "basis.npz", "agents", "log.jsonl", "convergence.png"}
    names |= {"launch.json"}
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
    assert (folder / "convergence.png").read_bytes().startswith(b"\x89PNG")
    for line in (folder / "log.jsonl").read_text().splitlines():
        assert {"time", "level", "logger", "message"} <= set(json.loads(line))


def test_killing_an_agent_does_not_end_the_run(tmp_path: Path, fifo: Path, no_matplotlib: str) -> None:
    variables = {"TOY_FIFO": str(fifo), "PYTHONPATH": no_matplotlib}
    arguments = ("--agents", "3", "--rounds", "30", "--session-timeout-seconds", "1", "--output", "run")
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
    assert "no convergence.png: matplotlib is not installed; pip install '.[plot]'" in err
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


# Wrong use ------------------------------------------------------------------------------------------------------


def refusal(capfd: pytest.CaptureFixture[str], arguments: Sequence[str]) -> tuple[int, str]:
    """Exit code and sentence of a command that is refused; nothing else is said, and nothing is left."""
    before = sorted(Path.cwd().rglob("*"))
    code = in_this_process(*arguments)
    out, err = capfd.readouterr()
    said = ("making site", "cospan: warning: feature_dim is 3 and rank is 3")
    sentences = [line for line in err.splitlines() if not line.startswith(said)]
    assert out == ""
    assert len(sentences) == 1, err
    assert sentences[0].startswith("cospan: ")
    assert sorted(Path.cwd().rglob("*")) == before
    assert isinstance(code, int)
    return code, sentences[0]


@pytest.mark.usefixtures("_toys")
@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (f"run {TOY} --rank 0", 2, "rank is 0; it must be 1 to feature_dim = 3"),
        (f"run {TOY} --rank 4", 2, "rank is 4; it must be 1 to feature_dim = 3"),
        (f"run {TOY} --agents 0", 2, "agents is 0; it must be"),
        (f"run {TOY} --agents 11", 2, "agents is 11; workload 'toy_workload:workload' has 10 sites"),
        (f"run {TOY} --agents many", 2, "agents is 'many' in --agents; it must be a whole number"),
        (f"run {TOY} --steps-per-round 1", 1, "allow this one with --min-steps-per-round 1"),
        (f"run {TOY} --min-steps-per-round 6", 1, "has 5 steps per round, and min_steps_per_round is 6"),
        (f"agent {TOY} --id 1 --min-steps-per-round 0", 2, "min_steps_per_round is '0' in --min-steps-per-round"),
        ("run microgrid", 2, "there is no workload 'microgrid'; take one of synthetic"),
        ("run nowhere:workload", 2, "there is no module 'nowhere'"),
        ("run toy_workload:nothing", 2, "has no attribute 'nothing'"),
        ("run toy_workload:not_a_workload", 2, "it must be a cospan.client.workload.Workload"),
        ("run toy_workload:site_raises", 1, "failed to make site 0: RuntimeError: no plan of this site"),
        ("run", 2, "no workload is named"),
        ("compare", 2, "Missing argument 'WORKLOAD'; see `cospan compare --help`"),
        (f"run {TOY} --fast", 2, "No such option"),
        (f"run {TOY} --port 70000", 2, "port is '70000'"),
        (f"run {TOY} --config nowhere.toml", 2, "there is no file nowhere.toml"),
        (f"run {TOY} --spec nowhere.toml", 1, "there is no file nowhere.toml"),
        (f"run {TOY} --output full", 1, "the run folder full is not empty"),
        (f"run {TOY} --output full/file", 1, "the run folder full/file is a file"),
        (f"run {TOY} --output full/file/run", 1, "full/file is a file"),
        ("run toy_workload:wrong_length --in-process", 1, "gave an array of shape (21, 2)"),
        ("run toy_workload:not_finite --in-process", 1, "an entry that is not finite"),
        ("run toy_workload:too_long --in-process", 1, "a vector of norm 3"),
        ("run toy_workload:raises_at_once --in-process", 1, "raised RuntimeError in step 0: the pump is on fire"),
        ("coordinator", 2, "name a workload with --workload"),
        ("coordinator --feature-dim 3 --rank 4", 2, "rank is 4; it must be 1 to feature_dim = 3"),
        (
            "coordinator --feature-dim 3 --rank 1 --host 0.0.0.0",
            2,
            "host is 0.0.0.0, which other machines can reach",
        ),
        ("coordinator --feature-dim 3 --rank 1 --run-folder full", 1, "the run folder full is not empty"),
        (f"coordinator --workload {TOY} --feature-dim 3", 2, "leave out --feature-dim"),
        (f"agent {TOY} --id pump-a", 2, "'pump-a' does not end in a number"),
        (f"agent {TOY} --index 3 --sticky-site", 2, "--sticky-site asks for a free site, and site 3 is given"),
        ("coordinator --feature-dim 3 --rank 1 --run-folder a --runs-folder b", 2, "are mutually exclusive"),
        (f"compare {TOY} --rounds 0", 2, "a comparison has an end"),
        (f"compare {TOY} --output full", 1, "the run folder full is not empty"),
        (f"rank {TOY} --agents 1", 2, "agents is 1; a subspace is what several agents share"),
        (f"rank {TOY} --share 2", 2, "share is 2.0; it must be above 0, at most 1"),
        ("rank toy_workload:too_long --quiet", 1, "a vector of norm 3"),
        ("run toy_workload:with_constant", 1, "have a constant function in their span: over 4 states"),
        ("coordinator --workload toy_workload:with_constant", 1, "have a constant function in their span"),
        (
            "rank toy_workload:with_constant --agents 2 --rounds 9 --quiet",
            1,
            "smallest eigenvalue of -(A + Aᵀ)/2 is",
        ),
        ("compare nothing", 2, "there is no workload 'nothing'"),
        (f"agent {TOY} --id a/1", 2, "agent id 'a/1' must be"),
        (f"agent {TOY} --id 1 --coordinator here", 2, "coordinator is 'here'"),
        (f"agent {TOY} --id 1 --output nowhere/1.npz", 1, "cannot write nowhere/1.npz"),
        (f"agent {TOY} --id 1 --resume nowhere.npz", 1, "there is no file nowhere.npz"),
        (
            f"agent {TOY} --id 1 --resume full/file",
            1,
            "full/file cannot be read as the result of an agent: it is no npz file",
        ),
        (
            f"agent {TOY} --id 1 --coordinator 127.0.0.1:1 --progress-timeout-seconds 0",
            1,
            "127.0.0.1:1 does not answer",
        ),
        ("status --coordinator 127.0.0.1:1", 1, "127.0.0.1:1 does not answer"),
        ("stop --coordinator 127.0.0.1:1", 1, "127.0.0.1:1 does not answer"),
        ("status --tls-cert c.pem", 2, "tls_cert is said and tls_key and tls_ca are not; TLS needs all three"),
        (
            f"agent {TOY} --id 1 --tls-cert c --tls-key k --tls-ca a",
            2,
            "tls_cert is c, which cannot be read: No such",
        ),
        (
            "coordinator --feature-dim 3 --rank 1 --run-folder new --tls-cert c --tls-key k --tls-ca a",
            2,
            "tls_cert is c, which cannot be read: No such file",
        ),
        (
            "coordinator --feature-dim 3 --rank 1 --insecure --tls-ca a",
            2,
            "tls_ca is said and tls_cert and tls_key are not",
        ),
    ],
)
def test_a_wrong_use_gets_one_sentence_and_leaves_nothing(
    command: str, code: int, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    found, sentence = refusal(capfd, command.split())
    assert says in sentence
    assert found == code


@pytest.mark.usefixtures("_toys")
def test_the_files_of_another_run_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert in_this_process("run", TOY, *TINY, "--in-process", "--quiet", "--output", "mine") == 0
    capfd.readouterr()
    code, sentence = refusal(capfd, ["run", "toy_workload:unknown_truth", "--spec", "mine/spec.toml"])
    assert code == 2
    assert "mine/spec.toml is of workload 'toy_workload:workload', and the command names" in sentence
    spec = (tmp_path / "mine" / "spec.toml").read_text()
    (tmp_path / "bad.toml").write_text(spec.replace("rank = 1", "rank = 7"))
    code, sentence = refusal(capfd, ["run", TOY, "--spec", "bad.toml"])
    assert (code, "rank is 7" in sentence) == (1, True)


@pytest.mark.usefixtures("_toys")
def test_an_agent_refuses_to_resume_another_run(tmp_path: Path) -> None:
    assert in_this_process("run", TOY, *TINY, "--in-process", "--quiet", "--output", "mine") == 0
    saved = tmp_path / "mine" / "agents" / "site-0.npz"
    before = saved.read_bytes()
    arguments = ("--workload", TOY, "--agents", "1", "--rounds", "20", "--port", "0", "--json")
    with started("coordinator", *arguments, cwd=tmp_path) as coordinator:
        address = json.loads(line_of(coordinator, "listening"))["address"]
        own = ("--id", "0", "--coordinator", address, "--resume", str(saved), "--output", str(saved))
        code, _, err = cospan("agent", TOY, *own, cwd=tmp_path)
    assert code == 1
    assert "it was saved in another run" in err
    assert saved.read_bytes() == before


@pytest.mark.usefixtures("_toys")
def test_a_traceback_is_shown_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="there is no workload 'nothing'"):
        entry.main(["run", "nothing", "--debug"])


def test_where_nothing_is_true_nothing_can_be_compared(tmp_path: Path) -> None:
    arguments = ("compare", "toy_workload:unknown_truth", "--agents", "2", "--json")
    code, out, err = cospan(*arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "the sites of workload 'toy_workload:unknown_truth' have no reference solution" in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_toys")
def test_a_comparison_leaves_its_numbers_and_pictures(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its joint method is that of `cospan run`."""
    size = ("--agents", "3", "--rounds", "40", "--seed", "5")
    code, out, _ = cospan("compare", TOY, *size, "--seeds", "2", "--output", "both", "--json", cwd=tmp_path)
    found = json.loads(out)
    assert (code, json.loads((tmp_path / "both" / "comparison.json").read_text())) == (0, found)
    assert (found["seeds"], found["steps_per_agent"]) == ([5, 6], 200)
    methods = {entry["method"]: entry for entry in found["methods"]}
    assert {"joint", "TD alone", "LSTD alone", "FedTD-Uniform", "two time scales"} < set(methods)
    assert all(methods[name]["ratio"] >= 1.0 for name in ("TD alone", "LSTD alone"))
    assert 0 <= found["sites_worse_than_alone"] <= found["sites_compared"] == 2 * 3
    assert all(entry["low"] <= entry["value_error"] <= entry["high"] for entry in methods.values())
    with (tmp_path / "both" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    last = [row for row in rows if (row["method"], row["seed"], row["rounds"]) == ("joint", "5", "40")]
    assert in_this_process("run", TOY, *size, "--in-process", "--quiet", "--output", "one") == 0
    capfd.readouterr()
    assert float(last[0]["value_error"]) == pytest.approx(result_of(tmp_path / "one")["value_error"], rel=1e-9)
    assert (tmp_path / "both" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (tmp_path / "both" / "comparison.svg").read_text()
    assert in_this_process("compare", TOY, *size, "--seeds", "1", "--output", "again", "--quiet") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].endswith("200 steps each; median over agents, 1 seed")
    assert lines[-1] == "again"


def test_the_example_runs_as_it_says(tmp_path: Path) -> None:
    """`examples/my_own_environment.py`, copied into an empty folder, with the command in its first lines."""
    shutil.copy(ROOT / "examples" / "my_own_environment.py", tmp_path)
    arguments = ("--agents", "3", "--rounds", "30", "--quiet", "--output", "shops")
    code, out, err = cospan("run", "my_own_environment:shops", *arguments, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "shops"
    assert [agent["id"] for agent in result_of(tmp_path / "shops")["per_agent"]] == ["site-0", "site-1", "site-2"]


def test_a_comparison_that_is_interrupted_says_so_and_leaves_nothing(tmp_path: Path, fifo: Path) -> None:
    """Nor does a process of it outlive it: standard error, which they share, has an end."""
    arguments = ("--agents", "2", "--rounds", "1000000", "--seeds", "2")
    variables = {"TOY_FIFO": str(fifo)}
    with started("compare", "toy_workload:signalling", *arguments, cwd=tmp_path, **variables) as process:
        wait_for_site(fifo)
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "cospan: interrupted"
    assert not (tmp_path / "runs").exists()
