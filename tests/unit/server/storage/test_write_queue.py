"""The write_queue: in order, one transaction at a time, and no silent failure."""

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import join, run, specification, upload
from stored import NAME, RUN_ID, round_of

from cospan.server.machine import events
from cospan.server.runtime.engine import Engine
from cospan.server.storage.reader import read_basis, read_reports, read_saved, read_state
from cospan.server.storage.write_queue import RoundStore, WriteQueue
from cospan.server.storage.writer import Operation, RunStore, create_store, open_store
from cospan.wire.errors import RunFileError
from cospan.wire.messages import RunPhase

DROP = events.DropMember("token", ())


class Disk:
    """Stores nothing, and is as slow as a test wants; it fails at one write, where that is asked for."""

    def __init__(self, failure: Exception | None = None, at: int = 0) -> None:
        self.batches: list[list[Operation]] = []
        self.threads: set[str] = set()
        self.free = threading.Event()
        self.free.set()
        self._failure, self._at = failure, at

    def write(self, operations: list[Operation]) -> None:
        assert self.free.wait(20.0)
        self.threads.add(threading.current_thread().name)
        self.batches.append(list(operations))
        if self._failure is not None and len(self.batches) > self._at:
            raise self._failure


class Clock:
    """A write_queue that asks it was made long ago."""

    def __init__(self, up: float = 1e4) -> None:
        self._times = [0.0]
        self._up = up

    def __call__(self) -> float:
        return self._times.pop() if self._times else self._up


def journalling(disk: Disk, use: Callable[[WriteQueue], None], together: int = 1) -> list[Any]:
    """The events of a write queue that is used long after it was made, and closed."""
    told: list[Any] = []

    async def all_of_it() -> None:
        write_queue = WriteQueue(disk, told.append, together=together, clock=Clock())
        use(write_queue)
        await write_queue.close()

    run(all_of_it())
    return told


def test_what_comes_while_the_disk_is_busy_is_written_in_one_piece_and_in_order() -> None:
    disk = Disk()
    assert isinstance(disk, RoundStore)
    assert issubclass(RunStore, RoundStore)
    first, second = round_of(0), round_of(1)

    def use(write_queue: WriteQueue) -> None:
        disk.free.clear()
        for operation in (first, DROP, second, DROP):
            write_queue.add(operation)
        disk.free.set()

    told = journalling(disk, use)
    assert disk.batches == [[first], [DROP, second, DROP]]
    assert [event.records for event in told] == [[first.record], [second.record]]
    assert len(disk.threads) == 1
    assert threading.current_thread().name not in disk.threads


def told_round(number: int) -> events.StoreRound:
    return events.StoreRound(round_of(number).record, announced=True)


def test_rounds_that_nobody_waits_for_are_written_together() -> None:
    disk = Disk()
    rounds = [told_round(number) for number in range(5)]
    told: list[Any] = []

    async def all_of_it() -> None:
        write_queue = WriteQueue(disk, told.append, together=2, clock=Clock())
        for each in rounds:
            write_queue.add(each)
        await write_queue.close()

    run(all_of_it())
    assert disk.batches[0] == rounds[:2]
    assert [each for batch in disk.batches for each in batch] == rounds
    assert [record for event in told for record in event.records] == [each.record for each in rounds]
    assert len(told) == len(disk.batches), "what was written together is told together"
    assert len(disk.batches) <= 3


@pytest.mark.parametrize("urgent", [DROP, round_of(1)], ids=["a member", "a round that agents wait for"])
def test_what_somebody_waits_for_is_written_at_once_with_what_came_before(urgent: Any) -> None:
    disk = Disk()
    first = told_round(0)

    def use(write_queue: WriteQueue) -> None:
        write_queue.add(first)
        assert write_queue._writing is None
        write_queue.add(urgent)
        assert write_queue._writing is not None

    journalling(disk, use, together=9)
    assert disk.batches == [[first, urgent]]


@pytest.mark.parametrize(("up", "wait"), [(0.0, 0.0), (1.0, 0.02), (5.0, 0.1), (12.5, 0.25), (1e6, 0.25)])
def test_rounds_wait_the_longer_the_longer_the_coordinator_has_been_up(up: float, wait: float) -> None:
    async def due_in() -> float:
        write_queue = WriteQueue(Disk(), lambda _: None, together=9, clock=Clock(up))
        asked = asyncio.get_running_loop().time()
        write_queue.add(told_round(0))
        assert write_queue._due is not None
        due = write_queue._due.when() - asked
        await write_queue.close()
        return due

    assert wait <= run(due_in()) < wait + 0.5


def test_a_round_that_nobody_follows_is_written_soon() -> None:
    disk = Disk()
    stored: list[Any] = []

    async def all_of_it() -> None:
        arrived = asyncio.Event()
        write_queue = WriteQueue(disk, lambda event: (stored.append(event), arrived.set()), together=9)
        write_queue.add(told_round(0))
        await arrived.wait()
        await write_queue.close()

    run(all_of_it())
    (event,) = stored
    assert [record.closed_round for record in event.records] == [0]


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (RunFileError("the disk is full; make room"), "the disk is full; make room"),
        (OverflowError("too large"), "the run cannot be stored: OverflowError('too large')"),
    ],
)
def test_a_failure_is_said_once_and_nothing_follows_it(failure: Exception, says: str) -> None:
    """Else there would be a gap in what is stored."""
    disk = Disk(failure, at=1)

    def use(write_queue: WriteQueue) -> None:
        disk.free.clear()
        write_queue.add(round_of(0))
        write_queue.add(round_of(1))
        disk.free.set()

    told = journalling(disk, use)
    assert [type(event) for event in told] == [events.RoundsStored, events.StoreFailed]
    assert told[1].message == says
    assert len(disk.batches) == 2

    async def more() -> None:
        write_queue = WriteQueue(disk, told.append)
        write_queue.add(DROP)
        await write_queue.flush()
        write_queue.add(DROP)
        await write_queue.close()

    run(more())
    assert len(told) == 3
    assert len(disk.batches) == 3


def test_a_machine_that_fails_does_not_keep_the_write_queue_from_its_end(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()

    def fail(_: object) -> None:
        raise AssertionError("an invariant is broken")

    async def all_of_it() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logging.error(context["exception"]))
        write_queue = WriteQueue(disk, fail)
        disk.free.clear()
        write_queue.add(round_of(0))
        write_queue.add(DROP)
        disk.free.set()
        await write_queue.close()

    run(all_of_it())
    assert "an invariant is broken" in caplog.text
    assert [len(batch) for batch in disk.batches] == [1, 1]


# The engine with a store --------------------------------------------------------------------------------


class Stored:
    """An engine whose run is stored, with one stream for each agent."""

    def __init__(self, store: RunStore, *agents: str) -> None:
        self.engine = Engine(store.saved.specification, store=store)
        self.reports: list[int] = []
        self.engine.on_round.append(lambda command: self.reports.append(command.report.closed_round))
        for agent in agents:
            self.join(agent)

    def join(self, agent: str) -> None:
        stream = self.engine.streams.open()
        self.engine.handle(events.JoinRequested(join(agent), stream.number, f"token of {agent}"))

    async def play(self, rounds: int, value: float = 1.0) -> None:
        """Closes `count` rounds, and waits until they are on the disk."""
        for _ in range(rounds):
            number = self.engine.state.round
            for agent in ("a", "b"):
                self.engine.handle(
                    events.GradientArrived(f"token of {agent}", upload(number, agent, value=value + number))
                )
            assert self.engine._write_queue is not None
            await self.engine._write_queue.flush()


def test_every_round_is_on_the_disk_before_it_is_reported(tmp_path: Path) -> None:
    async def all_of_it() -> None:
        store = create_store(tmp_path / NAME, specification(rounds=0), run_id=RUN_ID)
        fleet = Stored(store, "a", "b")
        seen: list[int] = []
        fleet.engine.on_round.append(lambda _: seen.append(read_state(store.path).rounds))
        await fleet.play(4)
        assert seen == [1, 2, 3, 4]
        assert fleet.reports == [0, 1, 2, 3]
        assert fleet.engine.state.durability.durable_round == 4
        fleet.engine.handle(events.DrainRequested("it goes down", 1.0))
        await fleet.engine.close_store()

    run(all_of_it())
    assert [report.closed_round for report in read_reports(tmp_path / NAME)] == [0, 1, 2, 3]


def test_a_run_that_is_gone_on_with_has_the_bits_of_one_that_never_stopped(tmp_path: Path) -> None:
    async def in_pieces(name: str, pieces: tuple[int, ...]) -> np.ndarray:
        path = tmp_path / name
        store = create_store(path, specification(rounds=0), run_id=RUN_ID)
        for piece in pieces:
            fleet = Stored(store, "a", "b")
            assert fleet.engine.state.config.incarnation == store.incarnation
            await fleet.play(piece)
            fleet.engine.handle(events.DrainRequested("it goes down", 1.0))
            await fleet.engine.close_store()
            store = open_store(path)
        store.close()
        assert read_state(path).incarnation == len(pieces)
        return read_basis(path).basis

    whole, parts = run(in_pieces("whole", (7,))), run(in_pieces("parts", (0, 1, 4, 2)))
    assert whole.tobytes() == parts.tobytes()


def test_the_end_of_a_run_is_stored_and_a_drain_is_none(tmp_path: Path) -> None:
    async def all_of_it() -> None:
        store = create_store(tmp_path / NAME, specification(rounds=2), run_id=RUN_ID)
        fleet = Stored(store, "a", "b")
        await fleet.play(2)
        assert fleet.engine.state.phase is RunPhase.FINISHED
        await fleet.engine.close_store()
        await fleet.engine.close_store()

    run(all_of_it())
    state = read_state(tmp_path / NAME, check=True)
    assert (state.rounds, state.finish_cause) == (2, "rounds-reached")


def test_a_full_disk_ends_the_coordinator_and_the_run_goes_on_later(tmp_path: Path) -> None:
    async def until_it_is_full() -> int:
        store = create_store(tmp_path / NAME, specification(rounds=0), run_id=RUN_ID, checkpoint_interval=1)
        store._connection.execute("PRAGMA max_page_count = 16")
        fleet = Stored(store, "a", "b")
        while not fleet.engine.ended.is_set():
            await fleet.play(1)
        end = fleet.engine.end
        assert isinstance(end, events.Suspend)
        assert end.failed
        assert "database or disk is full" in end.message
        assert fleet.engine.state.durability.durable_round == len(fleet.reports) > 0
        await fleet.engine.close_store()
        return len(fleet.reports)

    rounds = run(until_it_is_full())
    saved = read_saved(tmp_path / NAME)
    assert saved.round == rounds

    async def when_there_is_room() -> None:
        fleet = Stored(open_store(tmp_path / NAME), "a", "b")
        await fleet.play(3)
        await fleet.engine.close_store()

    run(when_there_is_room())
    assert read_state(tmp_path / NAME, check=True).rounds == rounds + 3


def test_an_end_that_cannot_be_stored_is_said(tmp_path: Path) -> None:
    async def all_of_it() -> None:
        store = create_store(tmp_path / NAME, specification(rounds=0), run_id=RUN_ID)
        fleet = Stored(store, "a", "b")
        await fleet.play(1)
        store._connection.execute("PRAGMA query_only = 1")
        fleet.engine.handle(events.StopRequested("an operator stops it"))
        with pytest.raises(RunFileError, match="attempt to write a readonly database"):
            await fleet.engine.close_store()

    run(all_of_it())
    again = open_store(tmp_path / NAME)  # and the lock was given back
    assert again.saved.round == 1
    again.close()
