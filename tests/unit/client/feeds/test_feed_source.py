"""The steps of a feed: the slots of a log with the same rows, waits, late rewards, ends, restarts."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feed_values import MAPPING, feed_of

from cospan.client.feeds.feed import Feed
from cospan.client.feeds.feed_source import FeedSource
from cospan.client.feeds.told import FeedStep
from cospan.client.logs.log_source import LogSource
from cospan.client.logs.tables.csv_file import CsvFile
from cospan.client.step_source import AT_END, SourceInterruptedError, StepSource
from cospan.core.learning.learner_state import Trajectory
from cospan.wire.errors import WorkloadBehaviourError

TIMES = [0, 1, 2, 5, 6, 8, 10, 12, 13, 14, 15, 20, 22, 23, 30]


def source(feed: Feed) -> FeedSource:
    return FeedSource(feed, MAPPING.features)


def tell(feed: Feed, times: list[int], rewards: bool = True) -> None:
    feed.observe_all([FeedStep([float(t)], 10.0 * t if rewards else None, t, t) for t in times])


def same(one: Trajectory, other: Trajectory) -> None:
    assert np.array_equal(one.features, other.features)
    assert np.array_equal(one.rewards, other.rewards)
    assert (one.is_transition is None) == (other.is_transition is None)
    if one.is_transition is not None and other.is_transition is not None:
        assert np.array_equal(one.is_transition, other.is_transition)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 24])
@pytest.mark.parametrize("at_next", [False, True])
def test_the_same_rows_give_the_slots_of_a_log(tmp_path: Path, steps: int, at_next: bool) -> None:
    from dataclasses import replace

    path = tmp_path / "log.csv"
    path.write_text("at,x,r\n" + "".join(f"{t},{t},{10 * t}\n" for t in TIMES), encoding="utf-8")
    log = LogSource(replace(MAPPING, reward_at_next=at_next), CsvFile(path), "site-7")
    feed = feed_of(reward_at_next=at_next)
    tell(feed, TIMES)
    feed.complete()
    told = source(feed)
    assert isinstance(told, StepSource)
    while not log.at_end:
        assert not told.at_end
        same(told.advance(steps), log.advance(steps))
        assert (told.steps, told.reward_sum) == (log.steps, log.reward_sum)
    assert told.at_end
    same(told.advance(steps), log.advance(steps))
    ((kind, text),) = told.take_warnings()
    assert (kind, told.take_warnings()) == (AT_END, [])
    assert f"{log.steps} transitions" in text


def in_thread(told: FeedSource, steps: int) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def learn() -> None:
        try:
            found.append(told.advance(steps))
        except SourceInterruptedError as failure:
            found.append(failure)

    thread = threading.Thread(target=learn, daemon=True)
    thread.start()
    return thread, found


def test_a_round_begins_when_its_steps_are_there_and_not_before() -> None:
    feed = feed_of()
    told = source(feed)
    thread, found = in_thread(told, 3)
    tell(feed, [0, 1, 2])
    thread.join(0.05)
    assert thread.is_alive(), "three steps have two slots"
    tell(feed, [3])
    thread.join(30.0)
    assert found[0].is_transition is None
    assert found[0].rewards.tolist() == [0.0, 10.0, 20.0]
    assert told.anchor == 3


def test_a_wait_is_interrupted() -> None:
    told = source(feed_of())
    thread, found = in_thread(told, 3)
    told.interrupt()
    thread.join(30.0)
    assert "site-7 was stopped" in str(found[0])


def test_a_silent_feed_is_told_of_until_steps_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cospan.client.feeds.feed_source._SILENCE_SECONDS", 0.01)
    monkeypatch.setattr("cospan.client.feeds.feed._SHORTEST_SILENCE", 0.02)
    feed, said, silent = feed_of(step=0.001), list[float](), threading.Event()
    assert feed.form.step_seconds == 0.001

    def on_silence(seconds: float) -> None:
        said.append(seconds)
        if seconds:
            silent.set()

    told = FeedSource(feed, MAPPING.features, on_silence=on_silence)
    thread, _ = in_thread(told, 2)
    assert silent.wait(30.0)
    feed.observe_all([FeedStep([1.0], 1.0, sequence) for sequence in range(3)])
    thread.join(30.0)
    assert said[-1] == 0.0
    assert max(said) > 0.02


def test_how_long_is_silent_follows_from_the_steps() -> None:
    hourly = feed_of(step=3600.0)
    assert hourly._usual_silence() == 3 * 3600.0
    assert feed_of()._usual_silence() == 3600.0, "the step of a numeric time is not known in seconds"
    quick = feed_of(step=1.0)
    assert quick._usual_silence() == 60.0
    assert quick.silence() == 0.0


def test_a_late_reward_ends_the_wait_and_one_that_never_comes_makes_a_cut() -> None:
    feed = feed_of(reward_delay=3)
    tell(feed, [0, 1, 2], rewards=False)
    told = source(feed)
    thread, found = in_thread(told, 2)
    feed.observe(None, 1.5, sequence=1)
    feed.observe(None, 0.5, sequence=0)
    thread.join(30.0)
    assert found[0].rewards.tolist() == [0.5, 1.5]
    tell(feed, [3, 4, 5, 6])
    played = told.advance(4)
    assert played.is_transition is not None
    assert played.is_transition.tolist() == [False, True, True, True]
    assert played.rewards.tolist() == [0.0, 30.0, 40.0, 50.0]
    assert np.round(100 * played.features[:, 0]).tolist() == [2, 3, 4, 5, 6]


def test_a_reward_that_is_unknown_is_a_cut_at_once() -> None:
    feed = feed_of()
    feed.observe_all([FeedStep([float(t)], float("nan") if t == 1 else 1.0, t) for t in range(5)])
    played = source(feed).advance(4)
    assert played.is_transition is not None
    assert played.is_transition.tolist() == [True, False, True, True]


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_restarted_agent_continues_with_the_next_slot(tmp_path: Path, rounds: int) -> None:
    unbroken = feed_of()
    tell(unbroken, TIMES)
    unbroken.complete()
    whole = source(unbroken)
    feed = feed_of(tmp_path / "f.feed")
    tell(feed, TIMES)
    told = source(feed)
    assert told.saved() is None
    for _ in range(rounds):
        same(told.advance(2), whole.advance(2))
    state = (told.steps, told.reward_sum, told.saved())
    assert told.anchor is not None
    feed.release(told.anchor)
    feed.close()
    feed = feed_of(tmp_path / "f.feed")
    again = source(feed)
    assert again.go_on(*state) == ""
    feed.complete()
    for _ in range(4):
        same(again.advance(2), whole.advance(2))
    assert (again.steps, again.reward_sum) == (whole.steps, whole.reward_sum)
    assert again.take_warnings() == whole.take_warnings()
    feed.close()


def test_another_backlog_or_one_that_lacks_steps_is_refused(tmp_path: Path) -> None:
    feed = feed_of(tmp_path / "one.feed")
    tell(feed, TIMES)
    told = source(feed)
    told.advance(2)
    state = (told.steps, told.reward_sum, told.saved())
    other = feed_of(tmp_path / "other.feed")
    with pytest.raises(WorkloadBehaviourError, match=r"other\.feed is not the backlog that site-7 has learnt from"):
        source(other).go_on(*state)
    feed._backlog._database.execute("DELETE FROM steps WHERE sequence < 4")
    with pytest.raises(WorkloadBehaviourError, match="does not hold step 2"):
        source(feed).go_on(*state)
    assert source(other).go_on(0, 0.0, None) == ""
    other.close()
    feed.close()


def test_a_new_run_says_that_it_begins_in_the_middle(tmp_path: Path) -> None:
    feed = feed_of(tmp_path / "f.feed")
    tell(feed, TIMES)
    feed.release(13)
    ((kind, text),) = source(feed).take_warnings()
    assert kind == "feed"
    assert "begins with the oldest step" in text
    feed.close()


def test_a_feed_in_memory_goes_on_with_what_comes() -> None:
    feed = feed_of()
    told = source(feed)
    assert told.go_on(7, 3.5, None) == ""
    assert (told.steps, told.reward_sum) == (7, 3.5)


def test_an_end_without_any_transition_is_an_error() -> None:
    feed = feed_of()
    tell(feed, [0, 2, 4])
    feed.complete()
    with pytest.raises(WorkloadBehaviourError, match="ended without two steps that follow one another"):
        source(feed).advance(2)


def test_rewards_that_come_after_the_end_are_refused(tmp_path: Path) -> None:
    from cospan.client.feeds.errors import StepRefusedError

    feed = feed_of(tmp_path / "f.feed")
    tell(feed, [0, 1, 2], rewards=False)
    feed.complete()
    feed.close()
    feed = feed_of(tmp_path / "f.feed")
    with pytest.raises(StepRefusedError, match="late"):
        feed.observe(None, 1.0, sequence=1)
    feed.close()
