"""The judge of stalls in `make faults`: a busy machine is no fault, a coordinator that waits for nothing is one."""

import os

import pytest
from faults.evidence import StoredRound
from faults.stalls import (
    QUIET_STALL,
    QUIET_START,
    RETURN_SECONDS,
    STARTS,
    Schedule,
    Stall,
    Start,
    judged,
    schedule_of,
)


def stored(*times: float) -> list[StoredRound]:
    return [StoredRound(number, when, 1.0, {}, "") for number, when in enumerate(times)]


def start(at: float, seconds: float, *, wall: float | None = None, until: float = 1e9) -> Start:
    """A coordinator that ran 0.5 s at most, waited for a processor for the rest, and listened after `wall`."""
    ran = min(seconds, 0.5)
    took = seconds if wall is None else wall
    return Start(at, at + took, until, Schedule(ran, seconds - ran))


def killed(at: float, seconds: float) -> Start:
    """One that was killed before it listened."""
    return Start(at, None, at + seconds, Schedule(min(seconds, 0.5), max(0.0, seconds - 0.5)))


def judge(seconds: float, *starts: Start) -> Stall:
    (stall,) = judged(stored(1000.0, 1000.0 + seconds), starts)
    assert stall.round == 1
    assert stall.seconds == pytest.approx(seconds)
    return stall


def test_a_restart_on_a_busy_machine_is_no_stall() -> None:
    found = judge(6.61, start(1000.1, 2.7))
    assert found.start == pytest.approx(2.7)
    assert found.allowed == pytest.approx(RETURN_SECONDS + STARTS * 2.7)
    assert not found.is_too_long
    assert str(found) == "6.61 s (round 1), 2.4 times the slowest start beside it, 2.70 s; allowed 9.60 s"


@pytest.mark.parametrize("seconds", [0.3, 0.6, QUIET_START])
@pytest.mark.parametrize("kills", [0, 1, 2, 5])
def test_on_a_quiet_machine_no_more_than_five_seconds_are_allowed(seconds: float, kills: int) -> None:
    lost = [killed(1000.0 + index, seconds) for index in range(kills)]
    assert judge(8.0, *lost, start(1007.0, seconds)).allowed <= QUIET_STALL
    assert judge(QUIET_STALL, *lost, start(1000.1, seconds)).is_too_long


def test_waiting_for_nothing_is_a_stall_before_and_after_it_listens() -> None:
    assert judge(6.0, start(1000.1, 0.6)).is_too_long
    slept = start(1000.1, 0.6, wall=5.6)
    assert slept.seconds == pytest.approx(0.6)
    assert judge(6.0, slept).is_too_long


def test_computing_for_long_is_a_stall_too() -> None:
    computed = Start(1000.1, 1005.7, 1e9, Schedule(5.5, 0.1))
    assert computed.seconds == pytest.approx(1.1)
    assert judge(6.0, computed).is_too_long


def test_a_start_that_was_killed_counts_once_and_only_in_its_own_stall() -> None:
    alone = judge(3.0, start(1002.0, 2.0)).allowed
    assert judge(3.0, killed(1001.0, 1.0), start(1002.0, 2.0)).allowed == pytest.approx(alone + 1.0)
    before = start(901.0, 1.0, until=1000.0)
    assert judge(3.0, killed(900.0, 1.0), before, start(1000.0, 2.0)).allowed == pytest.approx(alone)
    listened = start(1000.5, 1.0, until=1002.0)
    assert judge(3.0, listened, start(1002.0, 2.0)).allowed == pytest.approx(alone + 1.5)


def test_the_time_without_any_coordinator_is_that_of_the_test() -> None:
    alone = judge(5.0, start(1001.0, 2.0)).allowed
    before = start(900.0, 1.0, until=1000.2)
    found = judge(5.0, before, start(1001.0, 2.0))
    assert found.allowed == pytest.approx(alone + 0.8)
    assert found.lives == (
        "started -100.00 (0.50 + 0.50), listened -99.00, ended 0.20; "
        "started 1.00 (0.50 + 1.50), listened 3.00, ended 999999000.00"
    )
    early = start(900.0, 1.0, until=990.0)
    assert judge(5.0, early, start(1001.0, 2.0)).allowed == pytest.approx(alone + 1.0), (
        "only what lies in the stall"
    )


def test_only_starts_of_the_same_minute_count() -> None:
    assert judge(3.0, start(1000.1, 0.6), start(1050.0, 4.0)).start == pytest.approx(4.0)
    assert judge(3.0, start(1000.1, 0.6), start(1064.0, 4.0)).start == pytest.approx(0.6)
    assert judge(3.0, start(1000.1, 0.6), start(930.0, 4.0)).start == pytest.approx(0.6)


def test_without_a_measured_start_the_bound_is_that_of_a_quiet_machine() -> None:
    for starts in ((), (Start(1000.1, 1003.0, 1e9, None),)):
        found = judge(4.9, *starts)
        assert (found.start, found.allowed) == (0.0, QUIET_STALL)
        assert "no start measured" in str(found)


def test_a_process_that_has_ended_has_no_schedule() -> None:
    assert schedule_of(2**22 + 1) is None
    own = schedule_of(os.getpid())
    assert own is None or own.ran > 0.0  # None where the system does not count it
