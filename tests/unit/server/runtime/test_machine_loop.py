"""The loop around a machine: the order of events and commands, and the catch-all of a round's arithmetic."""

import types
from typing import Any

import pytest
from runs import RINGS, specification

from cospan.client.placement import Host
from cospan.server.machine.events import Note
from cospan.server.runtime import basis_arithmetic
from cospan.server.runtime.machine_loop import MachineLoop, log_note
from cospan.simulation.local_run import LocalRun
from cospan.wire.errors import OutOfTurnError
from cospan.wire.messages import RunPhase


class Words(types.SimpleNamespace):
    """A machine whose state is what has happened; an event is a word, its commands are its letters."""

    def step(self, state: str, event: str, now: float, /) -> tuple[str, tuple[str, ...]]:
        if not event.isalpha():
            raise OutOfTurnError(f"{event!r} is no word")
        return f"{state} {event}".strip(), tuple(event)

    def next_deadline(self, state: str, /) -> float | None:
        return None


def loop_of(execute: dict[str, Any]) -> tuple[MachineLoop[str, str, str], list[str]]:
    """A loop, and the commands that it has executed; `execute` names what some of them do."""
    done: list[str] = []

    def carry_out(command: str) -> str | None:
        done.append(command)
        job = execute.get(command)
        return job() if callable(job) else job

    return MachineLoop[str, str, str](Words(), "", carry_out), done


def test_what_follows_from_a_command_happens_after_the_events_that_were_there() -> None:
    loop, done = loop_of({"a": "xy"})
    loop.handle("ab", "cd")
    assert (loop.state, "".join(done)) == ("ab cd xy", "abcdxy")


def test_an_event_within_a_command_happens_at_once_and_one_that_is_posted_at_the_end() -> None:
    loop, done = loop_of({"a": lambda: loop.handle("now"), "b": lambda: loop.post("then")})
    loop.handle("abc")
    assert (loop.state, "".join(done)) == ("abc now then", "anowbcthen")
    loop.post("d")
    assert loop.state.endswith("d")


def test_an_event_that_is_refused_changes_nothing_and_the_loop_goes_on() -> None:
    loop, done = loop_of({})
    with pytest.raises(OutOfTurnError):
        loop.handle("a", "?", "b")
    assert (loop.state, done) == ("a", ["a"])
    loop.post("c")
    assert loop.state == "a c"


def test_a_note_names_the_first_five_agents(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    log_note(Note("agent-gone", 3, tuple("abcdefg"), "why"))
    log_note(Note("agent-gone", 3, ("a",)), level=20)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [
        ("WARNING", "round 3: agent-gone a, b, c, d, e and 2 more why"),
        ("INFO", "round 3: agent-gone a"),
    ]


def test_arithmetic_that_fails_unforeseen_ends_a_run_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(basis_arithmetic, "sound_move", fail)
    hosts = [Host(f"site-{index}", (index,), is_group=False) for index in range(2)]
    run = LocalRun(specification(workload="rings"), RINGS, hosts, run_id="run-1")
    run.join_all()
    run.run_round()
    run.close()
    assert run.state.phase is RunPhase.FINISHED
    assert run.message == "round 0 gave no basis: no room"
