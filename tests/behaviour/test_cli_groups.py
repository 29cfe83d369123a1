"""Groups from outside: `cospan run --processes` and `cospan agent --ids`, real processes and what they leave."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from behaviour.command import (
    TINY,
    cospan,
    ended,
    in_this_process,
    line_of,
    result_of,
    started,
    wait_for_site,
)

from cospan.client.files.group_file import agents_of, load_group
from cospan.client.files.result_file import load_result

FIVE = ("--agents", "5", "--rounds", "20", "--rank", "1", "--seed", "3", "--quiet")


def basis_of(folder: Path) -> np.ndarray:
    with np.load(folder / "basis.npz", allow_pickle=False) as archive:
        return np.array(archive["basis"])


@pytest.mark.usefixtures("_toys")
def test_groups_leave_what_single_agents_leave(tmp_path: Path) -> None:
    """The same files and more, the same numbers up to rounding; and in process the same bits."""
    code, out, err = cospan(
        "run",
        "toy_workload:workload",
        *FIVE,
        "--processes",
        "2",
        "--output",
        "a",
        cwd=tmp_path,
        COSPAN_PICTURES="1",
    )
    assert (code, err) == (0, "")
    table = [line for line in out.splitlines() if line.startswith("site-")]
    assert sorted(line.split()[0] for line in table) == [f"site-{index}" for index in range(5)]
    assert all(line.split()[-4] == "-" for line in table), "groups learn without TD alone"
    ratios = [float(line.split()[-2]) for line in table]
    assert ratios == sorted(ratios, reverse=True), "worst first, by LSTD alone"
    assert out.splitlines()[-1] == "a"
    again = ("run", "toy_workload:workload", *FIVE, "--in-process")
    assert in_this_process(*again, "--processes", "2", "--output", "b") == 0
    assert in_this_process(*again, "--no-baseline", "--output", "c") == 0
    a, b, c = (result_of(tmp_path / name) for name in "abc")
    assert a["basis_sha256"] == b["basis_sha256"]
    np.testing.assert_allclose(basis_of(tmp_path / "a"), basis_of(tmp_path / "c"), rtol=0, atol=1e-9)
    same_numbers(a, c)
    agents = {path.name for path in (tmp_path / "a" / "agents").iterdir()}
    assert agents == {"group-0..1.npz", "group-2..4.npz", *(f"site-{index}.npz" for index in range(5))}
    assert agents == {path.name for path in (tmp_path / "b" / "agents").iterdir()}
    check_files(tmp_path / "a", a)


def same_numbers(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key in ("agents", "rounds", "agent_steps", "finish_cause", "departures"):
        assert found[key] == expected[key], key
    for key in ("value_error", "gain_error", "subspace_error"):
        assert found[key] == pytest.approx(expected[key], rel=1e-6), key
    for mine, other in zip(found["per_agent"], expected["per_agent"], strict=True):
        assert (mine["id"], mine["label"]) == (other["id"], other["label"])
        assert mine["mean_reward"] == other["mean_reward"], "the same data, bit for bit"
        assert mine["value_error"] == pytest.approx(other["value_error"], rel=1e-6)


def check_files(folder: Path, result: dict[str, Any]) -> None:
    """The groups' files, the agents' own and the run's say the same."""
    files = [load_group(folder / "agents" / name) for name in ("group-0..1.npz", "group-2..4.npz")]
    together = [agent for found in files for agent in agents_of(found)]
    for agent, row in zip(together, result["per_agent"], strict=True):
        own = load_result(folder / "agents" / f"{agent.text('agent_id')}.npz")
        assert agent.text("agent_id") == own.text("agent_id") == row["id"]
        for name in ("value_error", "lstd_alone_error", "lstd_alone_best_error", "shared_weight"):
            assert agent.number(name) == own.number(name) == row[name]
        for name in ("td_error_correlation", "td_error_correlation_error"):
            assert agent.array(name).tolist() == own.array(name).tolist() == row[name]
        assert own.numbers("lstd_alone_weights", 1).shape == own.numbers("weights", 1).shape
    with (folder / "rounds.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert float(rows[-1]["value_error"]) == result["value_error"]
    assert {row["td_alone_error"] for row in rows} == {""}
    assert float(rows[-1]["lstd_alone_error"]) == result["baselines"]["lstd_alone"], "which takes no baseline"
    assert (folder / "convergence.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("_toys")
def test_a_group_learns_the_baseline_where_it_is_asked_for(tmp_path: Path) -> None:
    arguments = ("run", "toy_workload:workload", *FIVE, "--in-process")
    assert in_this_process(*arguments, "--processes", "1", "--baseline", "--output", "a") == 0
    assert in_this_process(*arguments, "--output", "b") == 0
    a, b = (result_of(tmp_path / name) for name in "ab")
    assert a["baselines"] == pytest.approx(b["baselines"], rel=1e-9)


def test_killing_a_group_ends_its_agents_and_not_the_run(
    tmp_path: Path,
    fifo: Path,
    no_matplotlib: str,
) -> None:
    variables = {"TOY_FIFO": str(fifo), "PYTHONPATH": no_matplotlib}
    arguments = (
        "--agents",
        "4",
        "--processes",
        "2",
        "--rounds",
        "30",
        "--session-timeout-seconds",
        "1",
        "--agent-restarts",
        "0",
        "--output",
        "run",
    )
    with started("run", "toy_workload:stuck", *arguments, cwd=tmp_path, **variables) as process:
        os.kill(wait_for_site(fifo), signal.SIGKILL)
        code, out, err = ended(process)
    assert code == 3, err
    result = result_of(tmp_path / "run")
    assert (result["agents"], result["rounds"], result["finish_cause"]) == (2, 30, "rounds-reached")
    assert [gone["agent_id"] for gone in result["departures"]] == ["site-0", "site-1"]
    assert "site-0, site-1 is gone: its stream broke and did not come back for 1 s" in err
    rows = [line for line in out.splitlines() if line.startswith(("site-0 ", "site-1 "))]
    assert all(row.endswith("gone in round 2") for row in rows)


def test_a_group_that_fails_at_once_ends_the_run_with_its_sentence(tmp_path: Path) -> None:
    arguments = ("run", "toy_workload:one_raises_at_once", *TINY, "--processes", "1")
    code, out, err = cospan(*arguments, "--quiet", cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err == "cospan: the environment or policy of site-1 raised RuntimeError in step 0: the pump is on fire\n"


def test_groups_started_alone(tmp_path: Path) -> None:
    """One that speaks plainly and one that speaks JSON, in one run; every agent has its file at the end."""
    run = ("--workload", "toy_workload:workload", "--agents", "5", "--rounds", "20", "--port", "0")
    (tmp_path / "learnt").mkdir()
    with started("coordinator", *run, "--run-folder", "run", "--json", cwd=tmp_path) as coordinator:
        address = json.loads(line_of(coordinator, "listening"))["address"]
        of_group = ("agent", "toy_workload:workload", "--coordinator", address)
        with (
            started(*of_group, "--ids", "0-1,4", "--output", "learnt", cwd=tmp_path) as plain,
            started(*of_group, "--ids", "2-3", "--baseline", "--json", cwd=tmp_path) as spoken,
        ):
            (code, out, err), (other, lines, _) = ended(plain), ended(spoken)
    assert (code, other) == (0, 0), err
    assert "group-0..4-" in out
    assert "all 20 rounds are done; 20 rounds learnt; mean reward" in out
    last = json.loads(lines.splitlines()[-1])
    assert (last["event"], last["agent"], last["label"], last["rounds"]) == (
        "finished",
        "group-2..3",
        "2 agents",
        20,
    )
    assert last["td_alone_error"] > 0.0
    names = sorted(path.name for path in (tmp_path / "learnt").glob("site-*"))
    assert names == ["site-0.npz", "site-1.npz", "site-4.npz"]


@pytest.mark.usefixtures("_toys")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("run", TOY := "toy_workload:workload", "--agents", "2", "--processes", "3"),
            "with 2 agents it must be 1 to 2",
        ),
        (("run", TOY, "--processes", "0"), "processes is '0' in --processes; it must be a whole number, 1 or more"),
        (
            ("run", TOY, "--preset", "paper", "--processes", "2", "--warm-up-rounds", "3"),
            "so a group cannot send them: set it to 0",
        ),
        (("run", "synthetic", "--agents", "70000", "--processes", "1"), "so for 70000 it must be 2 or more"),
        (("agent", TOY, "--ids", "3-1"), "'3-1' in it is no range of sites; write it as 0-99"),
        (("agent", TOY, "--ids", "0-3", "--id", "7"), "--ids names the sites 0-3; leave out --id, --index"),
        (("agent", TOY, "--ids", "0-3", "--share-td-error"), "share_td_error is for single agents"),
        (("agent", TOY, "--ids", "0-3", "--sticky-site"), "--ids names the sites 0-3; leave out --id, --index"),
        (("agent", TOY, "--ids", "0-3", "--output", "a.npz"), "a.npz is no folder; a group writes a file for each"),
        (("agent", TOY, "--ids", "0-3", "--resume", "a.npz"), "there is no file a.npz"),
    ],
)
def test_a_wrong_use_gets_one_sentence_and_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    assert in_this_process(*arguments) in (1, 2)
    out, err = capfd.readouterr()
    assert sentence in err
    assert (out, err.count("\n")) == ("", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_site_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Which is known when the coordinator is asked what the run is."""
    run = ("--workload", "toy_workload:workload", "--agents", "1", "--port", "0", "--json")
    with started("coordinator", *run, cwd=tmp_path) as coordinator:
        address = json.loads(line_of(coordinator, "listening"))["address"]
        code, _, err = cospan(
            "agent", "toy_workload:workload", "--ids", "8-10", "--coordinator", address, cwd=tmp_path
        )
    assert code != 0
    assert "workload 'toy' has no site 10; take 0 to 9" in err
