"""A feed: what is accepted, what is repeated, what is refused and why; restarts, bounds, rewards that come late."""

import math
import threading
from pathlib import Path
from typing import Any

import pytest
from feed_values import MAPPING, feed_of

from cospan.client.feeds.backlog import Backlog
from cospan.client.feeds.errors import BacklogError, BacklogFullError, FeedClosedError, FeedError, StepRefusedError
from cospan.client.feeds.told import FeedSettings, FeedStep, Outcome
from cospan.wire.errors import InvalidValueError

NEW, REPEATED = Outcome.NEW, Outcome.REPEATED


def refused(match: str) -> Any:
    return pytest.raises(StepRefusedError, match=match)


def test_a_step_is_accepted_once_however_often_it_is_told() -> None:
    feed = feed_of()
    assert feed.observe([1.0], 2.0, sequence=7) is NEW
    assert feed.observe([1.0], 2.0, sequence=7) is REPEATED
    assert feed.observe([1.0], sequence=7) is REPEATED, "a reward that is left out contradicts nothing"
    assert feed.next_sequence == 8
    status = feed.status()
    assert (status.newest, status.held, status.accepted, status.repeated, status.refused) == (7, 1, 1, 2, 0)


@pytest.mark.parametrize(
    ("step", "match"),
    [
        (FeedStep([5.0], 1.0, 3), "step 3 of site-7 comes after step 5, so its place is a gap by now"),
        (FeedStep([9.0], 1.0, 5), "accepted before with another observation; .* the next is 6"),
        (FeedStep([5.0], 9.0, 5), "has the reward 1, and now 9 is told"),
        (FeedStep(None, 1.0, 6), "whose observation has not come"),
        (FeedStep(None, 1.0, 3), "which was skipped"),
        (FeedStep(None, None, 5), "neither observation nor reward"),
        (FeedStep([5.0], math.inf, 6), "reward of step 6 is inf"),
        (FeedStep([5.0], "much", 6), "reward of step 6 is 'much'"),
        (FeedStep([5.0], True, 6), "reward of step 6 is True"),
        (FeedStep([math.nan], 1.0, 6), "step 6 of site-7 is refused: x is nan; it must be finite"),
        (FeedStep([1.0, 2.0], 1.0, 6), "has 2 values; send the columns x"),
        (FeedStep({"y": 1.0}, 1.0, 6), "has no column 'x'"),
        (FeedStep("text", 1.0, 6), "is no row"),
        (FeedStep([5.0], 1.0, -1), "sequence is -1"),
        (FeedStep([5.0], 1.0, 2**63), "sequence is 9223372036854775808"),
        (FeedStep([5.0], 1.0, 1.5), "sequence is 1.5"),
        (FeedStep([5.0], 1.0, None), "without one a repeated step would count twice"),
        (FeedStep([5.0], 1.0, None, 6), "numbered by time, and those before are by sequence"),
        (FeedStep([5.0], 1.0, 6, "noon"), "the time is 'noon'"),
    ],
)
def test_what_is_wrong_is_refused_with_a_sentence_and_counts_nothing(step: FeedStep, match: str) -> None:
    feed = feed_of()
    feed.observe([4.0], 1.0, sequence=2)
    feed.observe([5.0], 1.0, sequence=5)
    before = feed.settled_from(0)[0]
    (found,) = feed.observe_all([step])
    with refused(match):
        raise found  # type: ignore[misc]
    assert [each.sequence for each in feed.settled_from(0)[0]] == [each.sequence for each in before]
    assert (feed.status().held, feed.status().refused) == (2, 1)


def test_a_wrong_step_among_others_takes_no_other_with_it() -> None:
    feed = feed_of()
    found = feed.observe_all([FeedStep([0.0], 1.0, 0), FeedStep(["x"], 1.0, 1), FeedStep([2.0], 1.0, 2)])
    assert [isinstance(each, FeedError) for each in found] == [False, True, False]
    assert [each.sequence for each in feed.settled_from(0)[0]] == [0, 2]


@pytest.mark.parametrize(
    ("steps", "follows"),
    [
        ([(0, None), (1, None), (3, None)], [False, True, False]),
        ([(0, 0), (1, 1), (2, 3)], [False, True, False]),
        ([(0, 0), (1, 1.05), (2, 2.0)], [False, True, True]),
        ([(0, 5), (1, 4)], [False, False]),
        ([(0, 5), (1, None)], [False, False]),
        ([(0, 5), (1, "2024-01-01T00:00")], [False, False]),
    ],
)
def test_gaps_in_sequence_or_time_cut_the_chain(steps: list[tuple[int, Any]], follows: list[bool]) -> None:
    feed = feed_of()
    for sequence, at in steps:
        feed.observe([1.0], 0.0, sequence=sequence, at=at)
    assert [each.follows for each in feed.settled_from(0)[0]] == follows


def test_times_number_the_steps_where_the_time_step_is_known() -> None:
    feed = feed_of()
    assert feed.observe([1.0], 0.0, at=10) is NEW
    assert feed.observe([1.0], 0.0, at=10) is REPEATED
    assert feed.observe([1.0], 0.0, at=11.04) is NEW
    with refused("numbered by sequence, and those before are by time"):
        feed.observe([1.0], 0.0, sequence=12)
    with refused("before 1970"):
        feed.observe([1.0], 0.0, at=-3)
    assert [each.follows for each in feed.settled_from(0)[0]] == [False, True]


def test_one_sender_may_leave_the_numbers_to_the_feed_and_a_restart_is_a_gap(tmp_path: Path) -> None:
    feed = feed_of(tmp_path / "f.feed")
    for _ in range(3):
        feed.observe([1.0], 0.0)
    with refused("must name its step"):
        feed.observe(None, 1.0)
    feed.close()
    feed = feed_of(tmp_path / "f.feed")
    feed.observe([1.0], 0.0)
    feed.observe([1.0], 0.0)
    assert [each.sequence for each in feed.settled_from(0)[0]] == [0, 1, 2, 4, 5]
    feed.close()


def test_a_late_reward_names_its_step_and_is_awaited_for_a_while() -> None:
    feed = feed_of(reward_delay=2)
    feed.observe([0.0], sequence=0)
    feed.observe([1.0], 1.0, sequence=1)
    assert feed.settled_from(0)[1] == 0
    assert feed.observe(None, 5.0, sequence=0) is NEW
    assert feed.observe(None, 5.0, sequence=0) is REPEATED
    assert feed.settled_from(0)[1] == 2
    feed.observe([2.0], sequence=2)
    for sequence in (3, 4):
        feed.observe([1.0], 1.0, sequence=sequence)
    assert feed.settled_from(0)[1] == 2, "two later steps: it may still come"
    feed.observe([1.0], 1.0, sequence=5)
    assert feed.settled_from(0)[1] == 6, "it comes no more"
    with refused("comes 3 steps late, and was awaited for 2"):
        feed.observe(None, 1.0, sequence=2)


def test_a_full_backlog_says_so_and_takes_steps_again_when_a_file_includes_them() -> None:
    feed = feed_of(limit=3)
    for sequence in range(3):
        feed.observe([1.0], sequence=sequence)
    with pytest.raises(BacklogFullError, match="holds 3 steps that no file includes yet, its limit; step 3 is not"):
        feed.observe([1.0], sequence=3)
    assert feed.observe([1.0], 2.0, sequence=1) is NEW, "rewards take no room"
    feed.release(1)
    assert feed.observe([1.0], sequence=3) is NEW


def test_accepted_steps_outlive_the_process_and_given_up_ones_are_not_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cospan.client.feeds.backlog.REMEMBERED", 20)
    path = tmp_path / "site-7.feed"
    feed = feed_of(path)
    feed.observe_all([FeedStep([1.0], 1.0, each) for each in range(120)])
    feed.release(110)
    assert next(each.sequence for each in feed.settled_from(0)[0]) == 99, "some are remembered"
    feed.close()
    again = feed_of(path)
    assert again.next_sequence == 120
    assert again.status().held == 9
    assert again.observe([1.0], 1.0, sequence=5) is Outcome.PAST
    assert again.observe(None, 1.0, sequence=5) is Outcome.PAST
    assert again.observe([1.0], 1.0, sequence=100) is REPEATED
    with refused("another observation"):
        again.observe([2.0], 1.0, sequence=110)
    again.close()


def test_a_backlog_is_of_one_agent_one_form_and_one_process(tmp_path: Path) -> None:
    path = tmp_path / "site-7.feed"
    feed = feed_of(path)
    with pytest.raises(BacklogError, match="another process uses it"):
        feed_of(path)
    feed.close()
    with pytest.raises(BacklogError, match="holds the steps of site-7; name another --output for site-3"):
        feed_of(path, name="site-3")
    with pytest.raises(BacklogError, match="holds observations of the columns x"):
        Backlog(path, owner="site-7", form="the columns x, y")
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(BacklogError, match="file is not a database"):
        feed_of(path)
    with pytest.raises(BacklogError, match="cannot be opened"):
        feed_of(tmp_path / "there/is/no/folder.feed")


def test_a_disk_that_fails_accepts_nothing_and_later_steps_are_taken() -> None:
    feed = feed_of()
    feed.observe([1.0], 1.0, sequence=0)
    run = feed._backlog._database.execute
    run("PRAGMA max_page_count=1")  # SQLite takes the present size, so the next page does not fit
    with pytest.raises(BacklogError, match="full; make room"):
        feed.observe_all([FeedStep([1.0], 1.0, each) for each in range(1, 2000)])
    assert feed.next_sequence == 1
    run("PRAGMA max_page_count=100000")
    assert feed.observe([1.0], 1.0, sequence=1) is NEW
    assert feed.status().held == 2


def test_threads_tell_steps_at_once_and_each_counts_once() -> None:
    feed = feed_of()
    found: list[Outcome] = []

    def tell() -> None:
        for sequence in range(40):
            try:
                found.append(feed.observe([1.0], 1.0, sequence=sequence))
            except StepRefusedError:
                raise AssertionError from None

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found.count(NEW) == 40
    assert found.count(REPEATED) == 120


def test_after_its_end_nothing_is_accepted() -> None:
    feed = feed_of()
    feed.close()
    feed.close()
    with pytest.raises(FeedClosedError, match="site-7 has ended"):
        feed.observe([1.0], sequence=0)
    feed.release(3)
    assert feed.settled_from(0) == ([], 0)


def test_the_reward_of_a_row_follows_from_its_columns_and_settings_are_checked() -> None:
    feed = feed_of()
    assert feed.form.reward_of({"x": 1.0, "r": "2.5"}) == 2.5
    assert feed.form.reward_of({"x": 1.0}) is None
    assert math.isnan(feed.form.reward_of({"r": "NA"}) or 0.0)
    assert MAPPING.step == 1
    with pytest.raises(InvalidValueError, match="limit of a backlog is 0"):
        FeedSettings(limit=0)
    with pytest.raises(InvalidValueError, match="reward_delay is -1"):
        FeedSettings(reward_delay=-1)
