"""Secure sums through relays as processes: the bits of a run without relays, also after one was killed."""

from pathlib import Path

from behaviour.command import TOY, cospan, result_of
from behaviour.test_relay_processes import SIZE, run_behind_two_relays, run_with_a_killed_relay
from stored import NAME

from cospan.server.storage.reader import read_reports


def bits_of_a_run_in_one_process(folder: Path, *options: str) -> str:
    code, _, _ = cospan("run", TOY, *SIZE, *options, "--in-process", "--output", "whole", "--quiet", cwd=folder)
    assert code == 0
    return str(result_of(folder / "whole")["basis_sha256"])


def test_six_agents_behind_two_relays_come_to_the_bits_of_a_run_without(tmp_path: Path) -> None:
    options = ("--rounds", "60", "--secure-sums", "--min-cohort", "4")
    run_behind_two_relays(tmp_path, *options)
    assert {report.contributors for report in read_reports(tmp_path / "run" / NAME)} == {6}
    assert result_of(tmp_path / "run")["basis_sha256"] == bits_of_a_run_in_one_process(tmp_path, *options)


def test_a_relay_that_is_killed_and_started_again_voids_one_round_at_most(tmp_path: Path) -> None:
    """None, and the bits are the same, unless one of its agents is late: then the others continue without it."""
    rounds = 120
    run_with_a_killed_relay(tmp_path, rounds, "--secure-sums")
    found = [report.contributors for report in read_reports(tmp_path / "run" / NAME)]
    assert found.count(0) <= 1
    if set(found) == {6}:
        whole = bits_of_a_run_in_one_process(tmp_path, "--rounds", str(rounds), "--secure-sums")
        assert result_of(tmp_path / "run")["basis_sha256"] == whole
