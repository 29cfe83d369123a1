"""The count of vectors in an agent's file: on the disk before a vector is sent, never less than was sent."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from private_runs import private
from runs import SECONDS, announced, ring_site

from cospan.client.files import state_file
from cospan.client.files.persistence import LearnerContext, StateKeeper, StatePolicy, vectors_before
from cospan.client.files.result_file import load_result, save_result
from cospan.client.files.state_file import ONE_AGENT, StateFile, counted_in
from cospan.client.learning.site_learner import SiteLearner
from cospan.wire import messages as m
from cospan.wire.errors import BudgetSpentError, RunFileError
from cospan.wire.files import npz

AROUND = LearnerContext(lambda: None, lambda: 0, lambda: False, lambda _: None, 1.0)


def learner(rounds: int = 1) -> SiteLearner:
    made = SiteLearner(ring_site(1, 1), private(), name="site-1", index=1)
    for number in range(rounds):
        made.learn(number, *announced(made.specification))
    return made


def file_of(path: Path, made: SiteLearner | None = None) -> StateFile[SiteLearner]:
    return StateFile(path, made or learner(), ONE_AGENT, run_id="run-1")


def keeper_of(folder: Path, *, before: int = 0, resume_from: Path | None = None) -> StateKeeper[SiteLearner]:
    policy = StatePolicy(resume_from, folder / "a.npz", 5.0)
    return StateKeeper(
        lambda _: learner(0), ONE_AGENT, policy, AROUND, run_id="run-1", first_round=0, vectors_before=before
    )


def test_a_count_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    file = file_of(path)
    for number in range(1, 4):
        file.count((), most=10)
        assert counted_in(path) == number


def test_the_budget_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    file = file_of(path)
    file.vectors = 9
    file.count((), most=10)
    with pytest.raises(
        BudgetSpentError, match="site-1 has sent 10 vectors, and the privacy budget of this run is for 10"
    ):
        file.count((), most=10)
    assert (file.vectors, counted_in(path)) == (10, 10)


def test_what_cannot_be_counted_is_refused_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    file = file_of(path)
    file.count((), most=10)
    with monkeypatch.context() as full:

        def fail(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        full.setattr(npz, "_write", fail)
        with pytest.raises(RunFileError, match="No space left"):
            file.count((), most=10)
    assert counted_in(path) == 1
    file.count((), most=10)
    assert counted_in(path) == 3


def test_a_write_that_was_under_way_does_not_undo_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has begun with the count of before ends while the next vector is being counted."""
    path, begun, going = tmp_path / "a.npz", threading.Event(), threading.Event()
    main = threading.current_thread()
    written: list[int] = []

    def save(path: Path, **values: Any) -> None:
        if not begun.is_set() and threading.current_thread() is not main:
            begun.set()
            assert going.wait(SECONDS)
        npz.save_npz(path, **values)
        written.append(values[state_file.VECTORS])

    monkeypatch.setattr(state_file, "save_npz", save)
    file = StateFile(path, learner(), ONE_AGENT, run_id="run-1", every_seconds=1e-9)
    file.after_round()
    assert begun.wait(SECONDS)
    assert file._writer is not None
    submit = file._writer.submit

    def submitted(job: Callable[[], Any]) -> None:
        submit(job)
        going.set()

    monkeypatch.setattr(file._writer, "submit", submitted)
    file.count((), most=10)
    assert written == [0, 1]
    assert counted_in(path) == 1
    file.after_last_round()
    file.finish()
    assert counted_in(path) == 1


def test_it_continues_from_its_file(tmp_path: Path) -> None:
    first = keeper_of(tmp_path)
    first.learn(0, *announced(first.learner.specification))
    first.count_vector()
    first.count_vector()
    again = keeper_of(tmp_path, before=5)  # what the coordinator tells is for those without a file
    assert again.state_file is not None
    assert again.state_file.vectors == 2
    assert "ε = 8, δ = 1e-05 for all of its 10 vectors, of which 2 were sent before by its file" in again.notes[-1]


def test_without_a_file_it_counts_what_it_may_have_sent(tmp_path: Path) -> None:
    keeper = keeper_of(tmp_path, before=4)
    assert keeper.state_file is not None
    assert keeper.state_file.vectors == 4
    assert keeper.notes[-1].endswith("of which 4 were sent before at most, for it has no file of this run")


def test_a_damaged_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no npz file")
    keeper = keeper_of(tmp_path, before=4)
    assert keeper.state_file is not None
    assert keeper.state_file.vectors == 4


def test_a_file_to_resume_from_does_not_lower_the_count(tmp_path: Path) -> None:
    """It was saved earlier, or says nothing of vectors."""
    first = keeper_of(tmp_path)
    first.learn(0, *announced(first.learner.specification))
    first.count_vector()
    save_result(tmp_path / "saved.npz", first.learner, run_id="run-1")
    assert counted_in(tmp_path / "saved.npz") is None
    again = keeper_of(tmp_path, before=0, resume_from=tmp_path / "saved.npz")
    assert again.state_file is not None
    assert again.state_file.vectors == 1
    (tmp_path / "a.npz").unlink()
    lost = keeper_of(tmp_path, before=3, resume_from=tmp_path / "saved.npz")
    assert lost.state_file is not None
    assert lost.state_file.vectors == 3


def test_a_run_without_differential_privacy_has_no_count_in_its_files(tmp_path: Path) -> None:
    made = SiteLearner(ring_site(1, 1), private(dp_epsilon=0.0), name="site-1", index=1)
    made.learn(0, *announced(made.specification))
    file = file_of(tmp_path / "a.npz", made)
    file.finish()
    assert state_file.VECTORS not in load_result(tmp_path / "a.npz").values


@pytest.mark.parametrize(
    ("first_round", "incarnation", "before"),
    [(0, 1, 0), (0, 2, 0), (3, 1, 3), (3, 3, 5)],
)
def test_what_an_agent_without_a_file_may_have_sent(first_round: int, incarnation: int, before: int) -> None:
    """One in each round below its first, and one more for each restart of the coordinator."""
    spec = private()
    basis, covariance = announced(spec)
    stamp = m.Stamp("run-1", incarnation, first_round, first_round)
    welcome = m.Welcome(stamp, "token", spec, basis, first_round, True, head_covariance=covariance)
    assert vectors_before(welcome) == before
