"""An agent's own file during a run: when it is written, what is gone on from, and what is moved aside."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import announced, ring_site, specification

from cospan.client.files import state_file
from cospan.client.files.result_file import load_result, save_result
from cospan.client.files.state_file import ONE_AGENT, StateFile
from cospan.client.learning.site_learner import SiteLearner
from cospan.core.method import PRESETS
from cospan.wire.errors import RunFileError
from cospan.wire.files import npz


def learner(rounds: int = 0, *, name: str = "site-1", seed: int = 1) -> SiteLearner:
    spec = specification(PRESETS["practical"](3), feature_fingerprint="map-1", rounds=9, seed=seed)
    made = SiteLearner(ring_site(1, 1), spec, name=name, index=1)
    learn(made, rounds)
    return made


def learn(made: SiteLearner, rounds: int = 1) -> None:
    for _ in range(rounds):
        made.learn(made.rounds, *announced(made.specification))


def rounds_in(path: Path) -> int:
    """How many rounds a file tells of, in each of its parts."""
    found = load_result(path)
    rounds = int(found.number("gain_count"))
    columns = [value for name, value in found.values.items() if name.startswith("curve_") and value.shape]
    assert [len(column) for column in columns] == [rounds] * 6
    return rounds


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Inline:
    """A worker that does each job when `work` is called."""

    jobs: list[Callable[[], None]]

    def __init__(self, name: str) -> None:
        Inline.jobs = []

    def submit(self, job: Callable[[], None]) -> None:
        Inline.jobs.append(job)

    @staticmethod
    def work() -> int:
        jobs, Inline.jobs = Inline.jobs, []
        for job in jobs:
            job()
        return len(jobs)

    def stop(self) -> None:
        Inline.work()

    def join(self, seconds: float) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(state_file, "LearnerThread", Inline)
    Inline.jobs = []
    return Clock()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# When it is written -----------------------------------------------------------------------------------------


def test_it_is_written_now_and_then_and_at_the_end(tmp_path: Path, clock: Clock) -> None:
    made, path = learner(), tmp_path / "a.npz"
    kept = StateFile(path, made, ONE_AGENT, run_id="run-1", every_seconds=5.0, clock=clock)
    written = []
    for _ in range(12):
        learn(made)
        kept.after_round()
        learn(made)  # whatever it learns meanwhile is not in the file
        written.append(rounds_in(path) if Inline.work() else None)
        clock.now += 2.0
    assert written == [None] * 3 + [7, None, None, 13, None, None, 19, None, None]
    kept.after_last_round()
    learn(made)
    kept.finish()
    assert rounds_in(path) == 24
    assert files(tmp_path) == ["a.npz"]


def test_it_is_written_at_the_end_alone_where_that_is_wanted(tmp_path: Path, clock: Clock) -> None:
    made = learner(1)
    kept = StateFile(tmp_path / "a.npz", made, ONE_AGENT, run_id="run-1", every_seconds=0.0, clock=clock)
    clock.now += 1e6
    kept.after_round()
    assert Inline.work() == 0
    kept.finish()
    assert rounds_in(tmp_path / "a.npz") == 1


def test_a_large_group_is_first_written_when_that_is_a_small_share_of_its_time(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = learner(1)
    numbers = state_file._MATRICES * made.specification.feature_dim**2
    monkeypatch.setattr(state_file, "_NUMBERS_A_SECOND", 2.0 * numbers)
    monkeypatch.setattr(type(made), "names", property(lambda _: ("site-0", "site-1")))  # half a second
    path = tmp_path / "a.npz"
    kept = StateFile(path, made, ONE_AGENT, run_id="run-1", every_seconds=5.0, clock=clock)
    clock.now += 0.5 / 0.05 - 0.1
    kept.after_round()
    assert Inline.work() == 0
    clock.now += 0.2
    kept.after_round()
    Inline.work()
    assert rounds_in(path) == 1


def test_nothing_learnt_leaves_no_file(tmp_path: Path, clock: Clock) -> None:
    kept = StateFile(tmp_path / "a.npz", learner(), ONE_AGENT, run_id="run-1", clock=clock)
    kept.after_last_round()
    kept.finish()
    assert files(tmp_path) == []


def test_a_slow_disk_is_written_to_less_often(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most a twentieth of the time goes into it; and one write at a time."""
    made = learner(1)

    def slow(path: Path, **values: Any) -> None:
        clock.now += 3.0
        npz.save_npz(path, **values)

    monkeypatch.setattr(state_file, "save_npz", slow)
    kept = StateFile(tmp_path / "a.npz", made, ONE_AGENT, run_id="run-1", every_seconds=5.0, clock=clock)
    clock.now += 5.0
    kept.after_round()
    clock.now += 50.0
    kept.after_round()
    assert Inline.work() == 1, "the first one is still under way"
    clock.now += 19 * 53.0 - 0.1
    kept.after_round()
    assert Inline.work() == 0
    clock.now += 0.2
    kept.after_round()
    assert Inline.work() == 1
    clock.now += 19 * 3.0 + 0.1
    kept.after_round()
    assert Inline.work() == 1


def test_a_write_that_fails_is_told_once_and_tried_again(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, path = learner(1), tmp_path / "a.npz"
    kept = StateFile(path, made, ONE_AGENT, run_id="run-1", every_seconds=5.0, clock=clock)

    def after_five_seconds() -> None:
        clock.now += 5.0
        learn(made)
        kept.after_round()
        assert Inline.work() == 1

    after_five_seconds()
    with monkeypatch.context() as full:

        def fail(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        full.setattr(npz, "_write", fail)
        after_five_seconds()
        after_five_seconds()
        assert rounds_in(path) == 2
        assert [record.message for record in caplog.records] == [
            f"cannot write {path}: No space left on device; site-1 learns on without, and tries again"
        ]
        with pytest.raises(RunFileError, match="No space left"):
            kept.finish()
    after_five_seconds()
    assert rounds_in(path) == 5
    assert len(caplog.records) == 1


def test_a_thread_of_its_own_writes_and_the_last_write_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, path = learner(3), tmp_path / "a.npz"
    ending, order = threading.Event(), []

    def save(path: Path, **values: Any) -> None:
        first = threading.current_thread() is not threading.main_thread()
        if first:
            assert ending.wait(15.0)
        npz.save_npz(path, **values)
        order.append("under way" if first else "last")

    monkeypatch.setattr(state_file, "save_npz", save)
    kept = StateFile(path, made, ONE_AGENT, run_id="run-1", every_seconds=1e-9)
    kept.after_round()
    learn(made)
    assert files(tmp_path) == [], "learning continues meanwhile"
    timer = threading.Timer(0.1, ending.set)
    timer.start()
    kept.finish()
    timer.join()
    assert order == ["under way", "last"]
    assert rounds_in(path) == 4


# What it begins with ------------------------------------------------------------------------------------------


def test_it_goes_on_from_its_own(tmp_path: Path) -> None:
    save_result(tmp_path / "site-1.npz", learner(4), run_id="run-1")
    again = learner()
    kept = StateFile(tmp_path, again, ONE_AGENT, run_id="run-1")
    words = kept.take_up()
    assert kept.path == tmp_path / "site-1.npz"
    assert words.startswith(f"continues from {kept.path}, after 4 rounds; its chain starts over, for the state of")
    assert (again.rounds, again.last_round) == (4, 3)


def test_it_writes_over_its_own_where_it_goes_on_from_another(tmp_path: Path) -> None:
    save_result(tmp_path / "a.npz", learner(4), run_id="run-1")
    again = learner()
    assert StateFile(tmp_path / "a.npz", again, ONE_AGENT, run_id="run-1").take_up(resuming=False) == ""
    assert (again.rounds, files(tmp_path)) == (0, ["a.npz"])


def test_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert StateFile(tmp_path / "a.npz", learner(), ONE_AGENT, run_id="run-1").take_up() == ""


@pytest.mark.parametrize("resuming", [True, False])
def test_the_file_of_another_run_is_given_another_name(tmp_path: Path, resuming: bool) -> None:
    path = tmp_path / "a.npz"
    for number in (1, 2):
        save_result(path, learner(number, name="site-8"), run_id="run/1")
        again = learner()
        words = StateFile(path, again, ONE_AGENT, run_id="run-2").take_up(resuming=resuming)
        aside = tmp_path / ("a.run1.npz" if number == 1 else "a.run1-2.npz")
        assert words == f"{path} is of another run; it is now {aside}"
        assert (again.rounds, rounds_in(aside)) == (0, number)
    assert files(tmp_path) == ["a.run1-2.npz", "a.run1.npz"]


def test_the_file_of_another_specification_is_given_another_name(tmp_path: Path) -> None:
    save_result(tmp_path / "a.npz", learner(2, seed=2), run_id="run-1")
    again = learner()
    assert (
        "is of another run; it is now" in StateFile(tmp_path / "a.npz", again, ONE_AGENT, run_id="run-1").take_up()
    )
    assert (again.rounds, files(tmp_path)) == (0, ["a.run-1.npz"])


@pytest.mark.parametrize("content", [b"", b"my notes", b"PK\x05\x06" + bytes(18)])
def test_a_damaged_file_is_given_another_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    words = StateFile(path, learner(), ONE_AGENT, run_id="run-1").take_up()
    assert words.endswith(f"; it starts from nothing, and that file is now {tmp_path / 'a.damaged.npz'}")
    assert (tmp_path / "a.damaged.npz").read_bytes() == content


def test_the_file_of_another_agent_of_the_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_result(path, learner(2, name="site-8"), run_id="run-1")
    with pytest.raises(RunFileError, match="is what site-8 has learnt in this run; name another file for site-1"):
        StateFile(path, learner(), ONE_AGENT, run_id="run-1").take_up()
    assert files(tmp_path) == ["a.npz"]


def test_a_file_that_cannot_be_moved_aside_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_result(tmp_path / "a.npz", learner(2), run_id="run-1")

    def fail(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(RunFileError, match="cannot be renamed: Permission denied; name another file"):
        StateFile(tmp_path / "a.npz", learner(), ONE_AGENT, run_id="run-2").take_up()


def test_what_a_kill_has_cut_short_is_removed(tmp_path: Path) -> None:
    for name in (".a.npz.x1y2.tmp", ".b.npz.x1y2.tmp", "a.npz.tmp"):
        (tmp_path / name).write_bytes(b"half of it")
    StateFile(tmp_path / "a.npz", learner(), ONE_AGENT, run_id="run-1").take_up()
    assert files(tmp_path) == [".b.npz.x1y2.tmp", "a.npz.tmp"]


def test_a_link_is_followed_once(tmp_path: Path) -> None:
    """What the last agents of a run write must not end up in the folder of the next run."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    latest = tmp_path / "latest"
    latest.symlink_to("one")
    kept = StateFile(latest, learner(1), ONE_AGENT, run_id="run-1")
    latest.unlink()
    latest.symlink_to("two")
    kept.finish()
    assert (files(tmp_path / "one"), files(tmp_path / "two")) == (["site-1.npz"], [])
