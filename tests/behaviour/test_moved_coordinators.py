"""Coordinators that an engine starts again at another address, and the numbers that it gives to its processes."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from behaviour.command import TOY, cospan, ended, environment, in_this_process, line_of, started
from behaviour.fleets import agents_of, direct, ends
from runs import RINGS, SECONDS, run, specification, until

from cospan.client.agent import Agent
from cospan.server import Coordinator
from cospan.server.storage.lock import STORE
from cospan.server.storage.reader import read_state


def _has_done(coordinator: Coordinator, rounds: int) -> bool:
    return coordinator.engine.state.round >= rounds


@pytest.mark.parametrize("by", ["file", "function"])
def test_agents_follow_a_coordinator_to_another_address(tmp_path: Path, by: str) -> None:
    """Twice, and the bits are those of a run that was never moved."""
    spec = specification(agents=3, rounds=40)
    file = tmp_path / "address"

    async def moving() -> np.ndarray:
        addresses = []
        agents = agents_of(3, f"@{file}")
        if by == "function":
            agents = [Agent(RINGS, index=index, coordinator=file.read_text) for index in range(3)]
        async with asyncio.TaskGroup() as group:
            group.create_task(ends(agents))  # before there is a coordinator
            for stop_at in (10, 20, None):
                coordinator = Coordinator(spec, run_folder=tmp_path / "run")
                await coordinator.start()
                addresses.append(coordinator.address)
                file.with_suffix(".new").write_text(coordinator.address)
                file.with_suffix(".new").rename(file)
                if stop_at is not None:
                    await until(coordinator.engine, partial(_has_done, coordinator, stop_at))
                    coordinator.drain("its machine is needed")
                await coordinator.wait()
                await coordinator.close()
        assert len(set(addresses)) == 3
        return coordinator.basis

    basis = run(moving())
    expected, _ = direct(replace(spec, agents=3))
    assert basis.tobytes() == expected.tobytes()
    assert read_state(tmp_path / "run" / STORE).incarnation == 3


def test_ctrl_c_leaves_a_stored_run_of_a_program_open(tmp_path: Path) -> None:
    program = (
        "from cospan.client import specify; from cospan.server import Coordinator\n"
        "import signal\n"
        "class Interrupted(Coordinator):\n"
        "    async def wait(self):\n"
        "        signal.raise_signal(signal.SIGINT)  # it listens\n"
        "        return await super().wait()\n"
        "Interrupted(specify('queues', agents=2, rounds=5), run_folder='run').run()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode != 0
    assert "KeyboardInterrupt" in done.stderr
    assert read_state(tmp_path / "run" / STORE).finish_cause is None


def test_a_fleet_in_shards_whose_coordinator_is_named_by_a_file(tmp_path: Path) -> None:
    """The commands of a script under Slurm: agents first, each with its number; then the coordinator."""
    shards = ("--agents", "5", "--coordinator", "@address", "--engine-patience", "--output", ".")
    by_slurm = ("--shard", "SLURM_ARRAY_TASK_ID/2", *shards)
    by_kubernetes = {"COSPAN_SHARD": "auto/2", "JOB_COMPLETION_INDEX": "1"}
    served = ("--workload", TOY, "--agents", "5", "--rounds", "9", "--port", "0")
    with (
        started("agent", TOY, *by_slurm, cwd=tmp_path, SLURM_ARRAY_TASK_ID="0") as a,
        started("agent", TOY, *shards, cwd=tmp_path, **by_kubernetes) as b,
        started("coordinator", *served, cwd=tmp_path) as c,
    ):
        address = line_of(c, "listens on").split("listens on ")[1].split(",")[0]
        (tmp_path / "address").write_text(address)
        code, out, _ = cospan("status", "--coordinator", "@address", cwd=tmp_path)
        assert code in (0, 1), out  # 1 where the run is over meanwhile
        assert [ended(each)[0] for each in (a, b, c)] == [0, 0, 0]
    assert {file.name for file in tmp_path.glob("site-*.npz")} == {f"site-{index}.npz" for index in range(5)}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--shard", "0/2"), "--shard 0/2 divides the fleet; say how many agents it has with --agents"),
        (("--shard", "0/2", "--ids", "0-3"), "--ids 0-3 and --shard 0/2 both name sites; leave out one"),
        (
            ("--shard", "0/2", "--index", "3", "--agents", "4"),
            "--shard names the sites 0/2; leave out",
        ),
        (("--shard", "4/4", "--agents", "8"), "and of 4 shards the first is 0/4 and the last 3/4"),
    ],
)
def test_a_wrong_shard_is_refused(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_this_process("agent", "queues", *arguments) == 2
    assert says in " ".join(capsys.readouterr().err.split())
