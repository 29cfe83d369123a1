"""Runs of the coordinator's machine that tests of several of its modules begin with."""

from typing import Any

from runs import CoordinatorDriver, Disk, moved, upload

from cospan.core.run_fields import Participation
from cospan.server.machine import events
from cospan.wire.messages import RunPhase

WAITING, COLLECTING, CLOSING, FINISHED, DRAINING = RunPhase
QUORUM: dict[str, Any] = {"participation": Participation.QUORUM, "quorum": 0.5, "deadline_seconds": 2.0}


def quorum_of_three(**changes: Any) -> tuple[CoordinatorDriver, list[str]]:
    """Agents a, b and c in round 0; two are a quorum, and after 2 s no one else is waited for."""
    run = CoordinatorDriver(**{"agents": 3, "rounds": 9} | QUORUM | changes)
    return run, [run.join(name) for name in "abc"]


def close(run: CoordinatorDriver, disk: Disk) -> list[str]:
    """The open round is computed and stored."""
    told = run.step(moved(run.state, run.state.round))
    for command in (commands := run.commands):
        if isinstance(command, events.StoreRound):
            disk.write([command])
            told += run.stored(command)
    run.commands = (*commands, *run.commands)
    return told


def waiting() -> CoordinatorDriver:
    return CoordinatorDriver()


def collecting(**changes: object) -> tuple[CoordinatorDriver, str, str]:
    """Two agents, a and b, in round 0."""
    run = CoordinatorDriver(**changes)
    return run, run.join("a"), run.join("b")


def closing(**changes: object) -> tuple[CoordinatorDriver, str, str]:
    """Round 0 has both gradients, and its basis is being computed."""
    run, a, b = collecting(**changes)
    run.gradient(a)
    run.gradient(b)
    return run, a, b


def finished() -> tuple[CoordinatorDriver, str, str]:
    run, a, b = collecting()
    run.step(events.StopRequested("enough"))
    return run, a, b


def gradient(token: str, round_number: int, *agents: str, weight: float = 1.0) -> events.GradientArrived:
    return events.GradientArrived(token, upload(round_number, *agents, weight=weight))
