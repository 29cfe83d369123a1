"""The engine: commands carried out, bytes shared, arithmetic in a thread or not, a clock that may stand still."""

import asyncio
import logging
from typing import Any

import numpy as np
import pytest
from runs import SESSION_TIMEOUT, D, R, join, run, specification, until, upload

from cospan.core.aggregation.basis_update import Contribution, next_basis
from cospan.core.linalg.matrices import DenseMatrix
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.server.machine import events
from cospan.server.runtime import basis_arithmetic, fast_path, machine_loop
from cospan.server.runtime.engine import Engine, EngineSettings
from cospan.server.runtime.streams import _OUTBOX_LENGTH, Stream
from cospan.server.telemetry.run_status import run_report
from cospan.wire import errors
from cospan.wire import messages as m
from cospan.wire.codec.messages import decode_coordinator_message


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Fleet:
    """An engine with one stream for each agent, and what comes out of it."""

    def __init__(self, *agents: str, settings: EngineSettings | None = None, **changes: Any) -> None:
        self.clock = Clock()
        spec = specification(agents=len(agents), **changes)
        self.engine = Engine(spec, clock=self.clock, settings=settings)
        self.notes: list[events.Note] = []
        self.engine.on_note.append(self.notes.append)
        self.streams: dict[str, Stream] = {}
        for agent in agents:
            self.join(agent)

    def join(self, agent: str, **changes: Any) -> Stream:
        stream = self.streams[agent] = self.engine.streams.open()
        self.engine.handle(events.JoinRequested(join(agent, **changes), stream.number, f"token of {agent}"))
        return stream

    def send(self, agent: str, round_number: int, value: float = 1.0) -> None:
        self.engine.handle(events.GradientArrived(f"token of {agent}", upload(round_number, value=value)))

    def break_stream(self, agent: str) -> None:
        stream = self.streams[agent]
        self.engine.streams.forget(stream)
        self.engine.handle(events.StreamClosed(f"token of {agent}", stream.number))


def received(stream: Stream) -> list[m.CoordinatorMessage]:
    """What waits in a stream's outbox, taken out and decoded."""
    messages = [decode_coordinator_message(pb.CollaborateResponse.FromString(data)) for data, _ in stream.outbox]
    stream.outbox.clear()
    return messages


def names(stream: Stream) -> list[str]:
    return [type(message).__name__ for message in received(stream)]


# Streams ------------------------------------------------------------------------------------------------


def test_of_several_bases_a_slow_reader_gets_the_newest() -> None:
    stream = Stream(1)
    for data, is_basis in ((b"welcome", False), (b"basis 1", True), (b"basis 2", True), (b"receipt", False)):
        stream.put(data, is_basis=is_basis)
    stream.put(b"basis 3", is_basis=True)
    stream.put(b"basis 4", is_basis=True)
    assert [data for data, _ in stream.outbox] == [b"welcome", b"basis 2", b"receipt", b"basis 4"]


def test_a_stream_that_is_closed_takes_nothing_more() -> None:
    stream = Stream(1)
    stream.put(b"finish", is_basis=False)
    stream.close(None)
    stream.close(errors.InternalError("too late"))
    stream.put(b"basis", is_basis=True)
    assert (len(stream.outbox), stream.closed, stream.error) == (1, True, None)


def test_a_peer_that_sends_and_does_not_read_is_cut_off() -> None:
    """Each duplicate is answered with a receipt: without a bound they fill the memory."""
    fleet = Fleet("a", "b")
    fleet.send("a", 0)
    for _ in range(200):
        fleet.send("a", 0)
    stream = fleet.streams["a"]
    assert len(stream.outbox) == _OUTBOX_LENGTH
    assert isinstance(stream.error, errors.OutOfTurnError)


# A round ------------------------------------------------------------------------------------------------


def test_gradients_are_seen_together() -> None:
    """Who came first makes no difference, so the machine need not know."""

    async def gather() -> None:
        fleet = Fleet("a", "b", "c", "d")
        engine = fleet.engine
        for agent in ("d", "a"):
            engine.take(f"token of {agent}", upload(0))
        assert not engine.state.open_round.counted
        engine.take("token of c", upload(0))
        assert not engine.state.open_round.counted
        engine.take("token of b", upload(0))
        assert (engine.state.round, list(engine.state.history.rounds_counted)) == (1, ["a", "b", "c", "d"])
        engine.take("token of a", upload(0))  # it has counted: that is said at once
        (*_, receipt) = received(fleet.streams["a"])
        assert isinstance(receipt, m.Receipt)

    run(gather())


def test_without_the_fast_path_gradients_are_seen_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_path, "ENABLED", frozenset())
    fleet = Fleet("a", "b")
    fleet.engine.take("token of b", upload(0))
    assert list(fleet.engine.state.open_round.counted) == ["b"]
    fleet.engine.take("token of a", upload(0))
    assert fleet.engine.state.round == 1


def test_nothing_else_happens_before_what_has_come_in() -> None:
    async def gather() -> None:
        fleet = Fleet("a", "b", "c", "d")
        engine = fleet.engine
        engine.take("token of a", upload(0))
        engine.handle(events.LeaveArrived("token of d", "it has to"))
        assert list(engine.state.open_round.counted) == ["a"]
        engine.take("token of b", upload(0))
        engine.take("token of b", upload(0, value=2.0))  # it counts as one that comes again
        assert list(engine.state.open_round.counted) == ["a", "b"]
        with pytest.raises(errors.OutOfTurnError):
            engine.take("token of c", upload(1))
        with pytest.raises(errors.SessionUnknownError):
            engine.take("token of d", upload(0))
        engine.take("token of c", upload(0))
        assert engine.state.round == 1

    run(gather())


def test_a_gradient_is_not_kept_from_the_machine_for_long() -> None:
    async def gather() -> None:
        fleet = Fleet("a", "b", "c")
        fleet.engine.take("token of a", upload(0))
        assert not fleet.engine.state.open_round.counted
        while not fleet.engine.state.open_round.counted:  # noqa: ASYNC110 - no event tells of a gradient that has counted
            await asyncio.sleep(0.001)
        assert list(fleet.engine.state.open_round.counted) == ["a"]

    run(gather())


def test_a_run_from_the_first_join_to_the_end() -> None:
    fleet = Fleet("a", "b", rounds=2)
    engine = fleet.engine
    rounds: list[m.RoundReport] = []
    engine.on_round.append(lambda command: rounds.append(command.report))
    assert names(fleet.streams["a"]) == ["Welcome", "BasisUpdate"]
    assert names(fleet.streams["b"]) == ["Welcome", "BasisUpdate"]
    first = engine.state.basis
    fleet.clock.now = 1.5
    fleet.send("b", 0, value=2.0)
    fleet.send("a", 0, value=1.0)
    contributions = [Contribution(DenseMatrix(np.full((D, R), value))) for value in (1.0, 2.0)]
    expected = next_basis(first, contributions, engine.state.specification.method, 0)
    assert engine.state.basis.tobytes() == expected.basis.tobytes()
    assert (engine.state.round, rounds[0].seconds, rounds[0].basis_movement) == (1, 1.5, expected.movement)
    (update,) = received(fleet.streams["a"])
    assert isinstance(update, m.BasisUpdate)
    assert update.basis.tobytes() == expected.basis.tobytes()
    assert not engine.ended.is_set()
    for agent in ("a", "b"):
        fleet.send(agent, 1)
    assert engine.ended.is_set()
    assert engine.end == events.EndRun(m.FinishCause.ROUNDS_REACHED, "all 2 rounds are done")
    assert [type(message) for message in received(fleet.streams["a"])] == [m.Finish]
    assert all(stream.closed and stream.error is None for stream in fleet.streams.values())
    assert [report.closed_round for report in engine.history.recent(9)] == [0, 1]
    assert [note.kind for note in fleet.notes] == ["agent-joined", "agent-joined", "run-started", "run-finished"]


def test_a_basis_is_serialised_once_for_all() -> None:
    fleet = Fleet("a", "b", "c")
    (_, a), (_, b), (_, c) = (stream.outbox for stream in fleet.streams.values())
    assert a[0] is b[0] is c[0]


def test_a_refused_event_sends_nothing() -> None:
    fleet = Fleet("a", "b")
    for stream in fleet.streams.values():
        stream.outbox.clear()
    state = fleet.engine.state
    with pytest.raises(errors.OutOfTurnError):
        fleet.send("a", 1)
    assert fleet.engine.state is state
    assert not any(stream.outbox or stream.closed for stream in fleet.streams.values())


def test_who_has_no_stream_gets_the_newest_state_when_it_comes_back() -> None:
    fleet = Fleet("a", "b")
    fleet.send("a", 0)
    fleet.break_stream("a")
    fleet.send("b", 0)
    stream = fleet.engine.streams.open()
    resumption = m.Resumption("token of a", fleet.engine.state.config.run_id, 0)
    fleet.engine.handle(events.JoinRequested(join("a", resumption=resumption), stream.number, "not used"))
    (welcome,) = received(stream)
    assert isinstance(welcome, m.Welcome)
    assert (welcome.stamp.round, welcome.session_token, stream.token) == (1, "token of a", "token of a")
    assert welcome.basis.tobytes() == fleet.engine.state.basis.tobytes()


def test_a_stream_that_is_superseded_ends_without_an_error() -> None:
    fleet = Fleet("a", "b")
    old = fleet.streams["a"]
    new = fleet.join("a")
    assert (old.closed, old.error, new.closed) == (True, None, False)
    assert names(new) == ["Welcome"]


def test_a_command_for_a_stream_that_is_gone_does_nothing() -> None:
    """The process is given up, and its stream is forgotten already."""
    fleet = Fleet("a", "b")
    fleet.engine.streams.forget(fleet.streams["a"])
    fleet.send("a", 0)
    fleet.clock.now = SESSION_TIMEOUT
    fleet.engine.handle(events.Tick())
    assert set(fleet.engine.state.members.departures) == {"a", "b"}
    assert isinstance(fleet.streams["b"].error, errors.SessionUnknownError)
    assert fleet.streams["a"].error is None


def test_a_listener_that_fails_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_command: object) -> None:
        raise OSError("the disk is full")

    heard: list[int] = []
    fleet = Fleet("a", "b", rounds=1)
    fleet.engine.on_round += [fail, lambda command: heard.append(command.report.closed_round)]
    fleet.engine.on_note.insert(0, fail)
    for agent in ("a", "b"):
        fleet.send(agent, 0)
    assert heard == [0]
    assert fleet.engine.ended.is_set()
    assert [type(message) for message in received(fleet.streams["a"])][-1] is m.Finish
    assert fleet.notes[-1].kind == "run-finished"
    assert "the disk is full" in caplog.text


def test_what_happens_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fleet = Fleet(*"abcdefg")
    fleet.break_stream("g")
    assert "round 0: run-started a, b, c, d, e and 2 more" in caplog.text
    lost = next(record for record in caplog.records if "agent-lost" in record.getMessage())
    assert (lost.levelno, lost.getMessage()) == (logging.WARNING, "round 0: agent-lost g its stream broke")


# Arithmetic ---------------------------------------------------------------------------------------------


def test_gradients_of_which_each_alone_has_no_finite_basis_end_the_run() -> None:
    fleet = Fleet("a", "b")
    basis = fleet.engine.state.basis
    for agent in ("a", "b"):
        fleet.send(agent, 0, value=1.7e308)
    assert fleet.engine.end is not None
    assert fleet.engine.end.cause is m.FinishCause.FAILED
    assert "round 0 gave no finite basis" in fleet.engine.end.message
    assert fleet.engine.state.basis is basis


def test_a_round_does_without_whoever_makes_its_arithmetic_fail(caplog: pytest.LogCaptureFixture) -> None:
    """Such a gradient is refused when it comes; this is the second door."""
    fleet, alone = Fleet("a", "b", "c"), Fleet("a", "c")
    fleet.send("b", 0, value=np.inf)
    for agent, value in (("a", 1.0), ("c", 2.0)):
        fleet.send(agent, 0, value)
        alone.send(agent, 0, value)
    assert (fleet.engine.state.round, fleet.engine.end) == (1, None)
    assert fleet.engine.state.basis.tobytes() == alone.engine.state.basis.tobytes()
    assert "round 0: gradients-left-out b the arithmetic fails with them" in caplog.text


def test_arithmetic_that_fails_unforeseen_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without this the round would stay open for ever, and every agent would wait for its basis."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(basis_arithmetic, "sound_move", fail)
    fleet = Fleet("a", "b")
    for agent in ("a", "b"):
        fleet.send(agent, 0)
    assert fleet.engine.end is not None
    assert "no room" in fleet.engine.end.message
    assert "MemoryError" in caplog.text


IN_THREAD = EngineSettings(thread_from_numbers=0)


def test_a_large_round_is_computed_in_a_thread_with_the_same_bits() -> None:
    async def threaded() -> bytes:
        fleet = Fleet("a", "b", settings=IN_THREAD)
        fleet.send("a", 0, value=1.0)
        fleet.send("b", 0, value=3.0)
        assert fleet.engine.state.phase is m.RunPhase.CLOSING, "the loop continues meanwhile"
        fleet.send("a", 0, value=1.0)
        await until(fleet.engine, lambda: fleet.engine.state.round == 1)
        return fleet.engine.state.basis.tobytes()

    fleet = Fleet("a", "b")
    fleet.send("a", 0, value=1.0)
    fleet.send("b", 0, value=3.0)
    assert run(threaded()) == fleet.engine.state.basis.tobytes()


def test_stopped_while_a_thread_computes() -> None:
    async def stopped() -> None:
        fleet = Fleet("a", "b", settings=IN_THREAD)
        for agent in ("a", "b"):
            fleet.send(agent, 0)
        fleet.engine.handle(events.StopRequested("enough"))
        await asyncio.gather(*fleet.engine._tasks)
        assert (fleet.engine.state.round, fleet.engine.state.phase) == (0, m.RunPhase.FINISHED)
        assert len(fleet.engine.history.recent(9)) == 0

    run(stopped())


# Time ---------------------------------------------------------------------------------------------------


def test_the_clock_ticks_when_a_deadline_is_due() -> None:
    async def timed() -> None:
        fleet = Fleet("a", "b")
        ticking = asyncio.create_task(fleet.engine.keep_time())
        fleet.clock.now = SESSION_TIMEOUT
        await until(fleet.engine, lambda: len(fleet.engine.state.members.departures) == 2)
        fleet.clock.now += 60.0
        await fleet.engine.ended.wait()
        await ticking
        assert fleet.engine.end is not None
        assert fleet.engine.end.cause is m.FinishCause.NO_AGENTS

    run(timed())


def test_nobody_is_given_up_because_the_coordinator_itself_stood_still(caplog: pytest.LogCaptureFixture) -> None:
    """What has arrived meanwhile is read first: here the agents' heartbeats."""

    async def stalled() -> None:
        fleet = Fleet("a", "b", settings=EngineSettings(longest_sleep_seconds=0.05))
        awake = asyncio.Event()

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "was stalled for" in record.getMessage():
                    for agent in ("a", "b"):
                        fleet.engine.handle(events.HeartbeatArrived(f"token of {agent}"))
                    awake.set()

        log = machine_loop.log
        handler = Handler()
        log.addHandler(handler)
        ticking = asyncio.create_task(fleet.engine.keep_time())
        await asyncio.sleep(0)
        fleet.clock.now += 100.0
        await awake.wait()
        log.removeHandler(handler)
        assert set(fleet.engine.state.members.hosts) == {"a", "b"}
        fleet.engine.handle(events.StopRequested("enough"))
        await ticking
        assert [note.kind for note in fleet.notes if note.kind == "agent-gone"] == []

    run(stalled())
    assert "the coordinator was stalled" in caplog.text


# Reports ------------------------------------------------------------------------------------------------


def test_the_report_names_everybody_and_whom_the_round_waits_for() -> None:
    fleet = Fleet("b", "a", "c")
    fleet.clock.now = 1.0
    fleet.send("a", 0)
    fleet.break_stream("b")
    fleet.engine.handle(events.LeaveArrived("token of c", "its shift is over"))
    fleet.clock.now = 3.0
    report = run_report(fleet.engine.state, fleet.engine.history, fleet.engine.now())
    assert (report.phase, report.phase_seconds, report.finish_cause) == (m.RunPhase.COLLECTING, 3.0, None)
    assert [agent.agent_id for agent in report.agents] == ["a", "b", "c"]
    a, b, c = report.agents
    assert (a.phase, a.seconds_since_last_message, a.awaited) == (m.AgentPhase.CONNECTED, 2.0, False)
    assert (b.phase, b.seconds_since_last_message, b.awaited) == (m.AgentPhase.LOST, 2.0, True)
    assert (c.phase, c.awaited, c.gone_in_round) == (m.AgentPhase.GONE, False, 0)
    assert c.gone_cause == "it left: its shift is over"
    assert report.rounds_per_second == 0.0


def test_the_report_counts_closed_rounds() -> None:
    fleet = Fleet("a", "b", rounds=0)
    for number in range(4):
        fleet.clock.now += 0.5
        fleet.send("a", number)
        fleet.send("b", number)
    fleet.send("a", 4)
    fleet.engine.handle(events.LeaveArrived("token of a", ""))
    report = run_report(fleet.engine.state, fleet.engine.history, fleet.engine.now())
    assert [agent.rounds_counted for agent in report.agents] == [4, 4]
    assert report.rounds_per_second == 2.0
    assert report.stamp.round == 4
