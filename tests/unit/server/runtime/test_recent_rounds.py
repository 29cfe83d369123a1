"""What observers are told of closed rounds: all of it, in order, within a bound of memory."""

import asyncio

import numpy as np
from runs import run

from cospan.server.runtime.recent_rounds import RecentRounds
from cospan.wire.messages import RoundReport, Stamp

BASIS = np.zeros((4, 2))


def report(number: int, *, basis: np.ndarray | None = BASIS) -> RoundReport:
    stamp = Stamp("run-1", 1, number + 1, number + 1)
    return RoundReport(stamp, number, 0.5, 2, (), 0.0, 0.0, basis)


def filled(count: int, first: int = 0, **limits: int) -> RecentRounds:
    history = RecentRounds(**limits)
    for number in range(first, first + count):
        history.append(report(number))
    return history


async def seen(history: RecentRounds, from_round: int) -> list[int]:
    return [report.closed_round async for report in history.follow(from_round)]


def with_basis(history: RecentRounds) -> list[int]:
    return [report.closed_round for report in history.recent(10_000) if report.basis is not None]


def test_nothing_yet() -> None:
    history = RecentRounds()
    assert (history.recent(5), history.first_round) == ([], 0)
    history.close()
    assert run(seen(history, 0)) == []


def test_the_newest() -> None:
    history = filled(5)
    assert [report.closed_round for report in history.recent(2)] == [3, 4]
    assert len(history.recent(99)) == 5


def test_observers_see_what_was_and_what_comes() -> None:
    async def watched() -> tuple[list[int], list[int]]:
        history = filled(3)
        first = asyncio.create_task(seen(history, 0))
        second = asyncio.create_task(seen(history, 4))
        await asyncio.sleep(0)
        history.append(report(3))
        history.append(report(4))
        await asyncio.sleep(0)
        history.append(report(5))
        history.close()
        return await first, await second

    assert run(watched()) == ([0, 1, 2, 3, 4, 5], [4, 5])


def test_an_observer_that_is_cancelled_leaves_the_others_alone() -> None:
    async def watched() -> list[int]:
        history = filled(1)
        gone, stays = asyncio.create_task(seen(history, 0)), asyncio.create_task(seen(history, 0))
        await asyncio.sleep(0)
        gone.cancel()
        history.append(report(1))
        history.close()
        return await stays

    assert run(watched()) == [0, 1]


def test_a_round_that_never_closes_is_not_waited_for_after_the_end() -> None:
    history = filled(2)
    history.close()
    assert run(seen(history, 2**64 - 1)) == []


def test_the_oldest_rounds_are_forgotten() -> None:
    history = filled(10, most_rounds=4)
    assert history.first_round == 6
    history.close()
    assert run(seen(history, 0)) == [6, 7, 8, 9]
    assert run(seen(history, 8)) == [8, 9]


def test_a_slow_observer_goes_on_with_what_is_still_remembered() -> None:
    async def slow() -> list[int]:
        history = filled(3, most_rounds=3)
        rounds = []
        async for entry in history.follow(0):
            rounds.append(entry.closed_round)
            if entry.closed_round == 0:
                for number in range(3, 8):
                    history.append(report(number))
                history.close()
        return rounds

    assert run(slow()) == [0, 5, 6, 7]


def test_only_the_newest_keep_their_basis() -> None:
    history = filled(10, most_basis_bytes=3 * BASIS.nbytes)
    assert with_basis(history) == [7, 8, 9]
    history.append(report(10))
    assert with_basis(history) == [8, 9, 10]


def test_both_bounds_at_once() -> None:
    """Rounds that are forgotten give their basis' room back, and those without one have none to give."""
    for most_rounds in (2, 3, 4, 7):
        history = filled(20, most_rounds=most_rounds, most_basis_bytes=3 * BASIS.nbytes)
        assert with_basis(history) == list(range(20 - min(3, most_rounds), 20))
        assert history._bytes_left == (3 - min(3, most_rounds)) * BASIS.nbytes


def test_a_basis_larger_than_the_bound_is_not_kept() -> None:
    history = filled(3, most_basis_bytes=BASIS.nbytes - 1)
    assert with_basis(history) == []
    assert history._bytes_left == BASIS.nbytes - 1


def test_a_history_that_begins_late() -> None:
    history = filled(5, first=1000, most_rounds=3, most_basis_bytes=2 * BASIS.nbytes)
    assert (history.first_round, with_basis(history)) == (1002, [1003, 1004])


def test_a_report_without_a_basis() -> None:
    history = RecentRounds(most_basis_bytes=0)
    history.append(report(0, basis=None))
    assert len(history.recent(1)) == 1
