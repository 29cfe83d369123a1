"""`cospan compare` from outside: what it needs, and what it leaves behind."""

import csv
import json
import signal
from pathlib import Path

import pytest
from behaviour.command import TOY, cospan, ended, in_this_process, result_of, started, wait_for_site


def test_where_nothing_is_known_to_be_true_held_out_data_judge(tmp_path: Path) -> None:
    arguments = ("compare", "toy_workload:unknown_truth", "--agents", "2", "--rounds", "40", "--seeds", "1")
    code, out, _ = cospan(*arguments, "--output", "unknown", cwd=tmp_path)
    assert code == 0
    assert "the true values are not known: errors are on as many further steps of each site" in out
    found = json.loads((tmp_path / "unknown" / "comparison.json").read_text())
    assert found["held_out"]
    assert found["sites_compared"] == 2


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
