"""A failure is seen where people look; an observer's failure is not one of the run."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from behaviour.command import (
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

SENTENCE = "the environment or policy of site-1 raised RuntimeError in step 40: the pump is on fire"
FOUR = ("--agents", "4", "--rounds", "20", "--rank", "1")


def test_a_site_that_fails_is_seen_on_the_screen_and_in_all_that_the_run_leaves(
    tmp_path: Path,
    no_matplotlib: str,
) -> None:
    arguments = ("run", "toy_workload:one_raises_later", *FOUR, "--output", "run", "--quiet")
    code, out, err = cospan(*arguments, cwd=tmp_path, PYTHONPATH=no_matplotlib)
    assert code == 3
    assert f"site-1 failed: {SENTENCE}" in err.splitlines(), "also where no progress is shown"
    assert "the run began with 4 agents and lost 1 of them: site-1" in err
    (gone,) = (line for line in out.splitlines() if line.startswith("gone: "))
    assert SENTENCE in gone
    result = result_of(tmp_path / "run")
    assert [(each["agent_id"], each["cause"]) for each in result["departures"]] == [("site-1", SENTENCE)]
    assert result["agents"] == 3
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["level"] for line in log if line["message"] == f"site-1 failed: {SENTENCE}"] == ["warning"]


def check_three_of_four(folder: Path, out: str, err: str) -> None:
    assert f"site-1 failed: {SENTENCE}" in err
    assert SENTENCE in out
    result = result_of(folder)
    assert [(each["agent_id"], each["cause"]) for each in result["departures"]] == [("site-1", SENTENCE)]
    assert (result["agents"], result["rounds"], result["finish_cause"]) == (3, 20, "rounds-reached")
    files = {path.name for path in (folder / "agents").glob("site-*")}
    assert files == {f"site-{index}.npz" for index in range(4)}, "the failed one has what it learnt until then"
    rounds = [load_result(folder / "agents" / f"site-{index}.npz").number("gain_count") for index in range(4)]
    assert rounds == [20, 2, 20, 20]


@pytest.mark.usefixtures("_toys")
@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_in_one_process_it_is_the_same(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], processes: tuple[str, ...]
) -> None:
    arguments = ("run", "toy_workload:one_raises_later", *FOUR, *processes, "--in-process")
    assert in_this_process(*arguments, "--output", "a") == 3
    check_three_of_four(tmp_path / "a", *capfd.readouterr())
    assert in_this_process(*arguments, "--output", "b", "--allow-losses") == 0


def test_a_member_that_fails_takes_only_itself_out_of_its_group(
    tmp_path: Path,
    no_matplotlib: str,
) -> None:
    arguments = ("run", "toy_workload:one_raises_later", *FOUR, "--processes", "2", "--output", "run")
    code, out, err = cospan(*arguments, cwd=tmp_path, PYTHONPATH=no_matplotlib)
    assert code == 3, err
    check_three_of_four(tmp_path / "run", out, err)


@pytest.fixture
def _hangups_end() -> Iterator[None]:
    """Children are not to ignore SIGHUP, as they would where these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_hangups_end")
@pytest.mark.parametrize("how", [(), ("--in-process",)])
def test_a_terminal_that_closes_ends_the_run_in_order(
    tmp_path: Path,
    fifo: Path,
    no_matplotlib: str,
    how: tuple[str, ...],
) -> None:
    """Its output has no reader any more, either."""
    variables = {"TOY_FIFO": str(fifo), "PYTHONPATH": no_matplotlib}
    arguments = ("--agents", "3", "--rounds", "1000000", "--output", "run", *how)
    with started("run", "toy_workload:signalling", *arguments, cwd=tmp_path, **variables) as process:
        wait_for_site(fifo)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        process.send_signal(signal.SIGHUP)
        process.wait(SECONDS)
    result = result_of(tmp_path / "run")
    assert (result["finish_cause"], result["departures"]) == ("stopped", [])
    assert result["rounds"] >= 2


def test_a_coordinator_whose_output_nobody_reads_serves_on(tmp_path: Path) -> None:
    """As with `cospan coordinator … | head -1`: agents were refused with BrokenPipeError."""
    of_run = ("--workload", "toy_workload:workload", "--agents", "1", "--rounds", "20", "--port", "0")
    with started("coordinator", *of_run, "--run-folder", "run", cwd=tmp_path) as coordinator:
        address = line_of(coordinator, "listens on").split(" on ")[1].split(",")[0]
        assert coordinator.stdout is not None
        assert coordinator.stderr is not None
        coordinator.stdout.close()
        coordinator.stderr.close()
        agent = ("agent", "toy_workload:workload", "--id", "0", "--coordinator", address)
        with started(*agent, cwd=tmp_path) as process:
            code, _, err = ended(process)
        assert code == 0, err
        assert coordinator.wait(SECONDS) == 0
    assert result_of(tmp_path / "run")["rounds"] == 20


@pytest.mark.usefixtures("_toys")
@pytest.mark.parametrize("broken", ["backend", "file"])
def test_a_picture_that_cannot_be_drawn_decides_over_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_arguments: object) -> None:
        raise ValueError("Key backend: 'module://matplotlib_inline.backend_inline' is not a valid value")

    monkeypatch.setitem(os.environ, "COSPAN_PICTURES", "1")
    monkeypatch.setattr(f"cospan.cli.output.plot.{'import_matplotlib' if broken == 'backend' else 'save'}", fail)
    assert in_this_process("run", "toy_workload:workload", *FOUR, "--in-process", "--output", "run") == 0
    out, err = capfd.readouterr()
    assert "no convergence.png: drawing failed with ValueError: Key backend:" in err
    assert out.splitlines()[-1] == "run"
    assert (tmp_path / "run" / "result.json").exists()
