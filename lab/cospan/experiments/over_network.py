"""Repeats in-process runs over gRPC and checks that they end with the same bits."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cospan.client.environment.import_path import python_module
from cospan.experiments.experiment import Plan
from cospan.experiments.runner import Task, TaskResult
from cospan.wire.errors import CospanError

_JOINT = "joint"


def networked_notes(plan: Plan, results: Sequence[TaskResult], say: Callable[[str], None]) -> tuple[str, ...]:
    """Repeats the runs that the plan names with `cospan run` and compares the last bases bit by bit.

    `options.networked_agents` (0) is the largest number of agents, `options.networked_seeds` (1) of seeds.

    Raises:
        CospanError: a run failed, or a basis differs.
    """
    most, seeds = plan.options.get("networked_agents", 0), plan.options.get("networked_seeds", 1)
    chosen = [each for each in results if each.task.agents <= most and each.task.seed in plan.seeds[:seeds]]
    for number, each in enumerate(chosen, start=1):
        task = each.task
        assert isinstance(task, Task)
        say(f"over gRPC, {number} of {len(chosen)}: {task.agents} agents, seed {task.seed}")
        ours, theirs = each.basis_sha256[_JOINT], _over_grpc(task)
        if ours != theirs:
            raise CospanError(
                f"{task.agents} agents, seed {task.seed}: the basis is {ours} in one process and {theirs} over gRPC"
            )
    if not chosen:
        return ()
    counts = ", ".join(str(count) for count in sorted({each.task.agents for each in chosen}))
    return (
        f"over gRPC, with a coordinator and {counts} agent processes, "
        f"{'the first seed' if seeds == 1 else f'the first {seeds} seeds'} gave the same bases bit for bit",
    )


def _over_grpc(task: Task) -> str:
    """SHA-256 of the last basis of the joint method in `cospan run`."""
    (joint,) = (each for each in task.methods if each.name == _JOINT)
    constants = {f"--{name.replace('_', '-')}": str(value).lower() for name, value in joint.method.items()}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        arguments = [str(task.workload), "--preset", joint.preset, "--agents", str(task.agents)]
        arguments += ["--rounds", str(task.rounds), "--seed", str(task.seed)]
        arguments += ["--no-baseline", *(word for pair in constants.items() for word in pair)]
        if task.rank is not None:
            arguments += ["--rank", str(task.rank)]
        if task.steps_per_round is not None:
            arguments += ["--steps-per-round", str(task.steps_per_round)]
        return str(cospan_run(arguments, output)["basis_sha256"])


def cospan_run(arguments: Sequence[str], output: Path, *, timeout: float | None = None) -> dict[str, Any]:
    """`cospan run` with these arguments, into a folder; its `result.json`.

    Raises:
        CospanError: the run failed.
        subprocess.TimeoutExpired: it took longer than `timeout` seconds.
    """
    command = ["run", *arguments, "--output", str(output), "--quiet"]
    done = subprocess.run(
        python_module("cospan.cli.main", *command),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise CospanError(f"`cospan {' '.join(command)}` failed: {done.stderr.strip()[-500:]}")
    result: dict[str, Any] = json.loads((output / "result.json").read_text(encoding="utf-8"))
    return result
