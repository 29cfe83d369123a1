"""What an agent keeps on disk: whole or not at all, without pickle, and of its own run only."""

import io
import pickle
import re
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import announced, ring_site, specification

from cospan.client.files import group_file
from cospan.client.files.result_file import FORMAT, load_result, resume, save_result
from cospan.client.learning.site_learner import SiteLearner
from cospan.core.method import PRESETS
from cospan.wire.errors import RunFileError
from cospan.wire.files import npz


def learner(
    rounds: int = 0,
    *,
    name: str = "site-1",
    with_baseline: bool = True,
    preset: str = "practical",
    rounds_of_run: int = 3,
    warm_up: int = 0,
    **changes: Any,
) -> SiteLearner:
    method = replace(PRESETS[preset](3), warm_up_rounds=warm_up)
    spec = specification(method, feature_fingerprint="map-1", rounds=rounds_of_run, **changes)
    made = SiteLearner(ring_site(1, 1), spec, name=name, index=1, with_baseline=with_baseline)
    for number in range(rounds):
        made.learn(number, *announced(spec))
    return made


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "site-1.npz"
    save_result(path, learner(4), run_id="run-1")
    return path


def rewrite(path: Path, **changes: Any) -> None:
    """The same file with some values changed, or left out where None."""
    values = {**npz.load_npz(path, "a test"), **changes}
    npz.save_npz(path, **{name: value for name, value in values.items() if value is not None})


def test_what_is_saved_can_be_read(saved: Path) -> None:
    result, original = load_result(saved), learner(4)
    assert result.text("format") == FORMAT
    assert (result.text("run_id"), result.text("agent_id")) == ("run-1", "site-1")
    assert result.values["weights"].tobytes() == original.weights.mean.tobytes()
    assert result.number("mean_reward") == original.mean_reward
    assert result.values["curve_round"].tolist() == [0, 1, 2, 3]
    assert result.td_alone_errors.shape == (3,)
    assert (saved.stat().st_mode & 0o777, [path.name for path in saved.parent.iterdir()]) == (0o644, ["site-1.npz"])


def test_the_documented_formats_are_those_that_are_written() -> None:
    page = (Path(__file__).parents[4] / "docs/run-folder.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`cospan-(?:agent|group)-[0-9]+`", page)) == {f"`{FORMAT}`", f"`{group_file.FORMAT}`"}


def test_an_agent_that_has_learnt_nothing_can_be_saved(tmp_path: Path) -> None:
    save_result(tmp_path / "a.npz", learner(0, with_baseline=False), run_id="run-1")
    result = load_result(tmp_path / "a.npz")
    assert np.isnan(result.number("mean_reward"))
    assert result.td_alone_errors.shape == (0,)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("with_baseline", [True, False])
def test_a_learner_goes_on_where_it_left_off(tmp_path: Path, with_baseline: bool, preset: str) -> None:
    original = learner(4, with_baseline=with_baseline, preset=preset)
    save_result(tmp_path / "a.npz", original, run_id="run-1")
    fresh = learner(0, with_baseline=with_baseline, preset=preset)
    resume(fresh, tmp_path / "a.npz", run_id="run-1")
    assert fresh.state.head.tobytes() == original.state.head.tobytes()
    assert (fresh.state.gain_estimate, fresh.state.steps) == (original.state.gain_estimate, 12)
    assert (fresh.weights.count, fresh.gain.count) == (4, 4)
    assert fresh.weights.mean.tobytes() == original.weights.mean.tobytes()
    assert (fresh.source.steps, fresh.mean_reward) == (12, original.mean_reward)
    assert astuple(fresh.state.rewards) == astuple(original.state.rewards)
    for name in ("basis", "system", "rewards", "traces"):
        ours, theirs = (getattr(each.state.statistics, name, None) for each in (fresh, original))
        np.testing.assert_array_equal(ours, theirs)
    if with_baseline:
        assert fresh.independent is not None
        assert original.independent is not None
        assert fresh.independent.weights.tobytes() == original.independent.weights.tobytes()
        assert (fresh.independent.steps, fresh.independent.averaged.count) == (12, 4)


@pytest.mark.parametrize("rounds", [1, 2, 4, 5])
@pytest.mark.parametrize("preset", ["paper", "compact", "full-history"])
def test_a_learner_goes_on_within_a_warm_up_and_after_it(tmp_path: Path, preset: str, rounds: int) -> None:
    """Saved before its last round, with it, and after it."""
    original, fresh = (learner(count, preset=preset, rounds_of_run=9, warm_up=4) for count in (rounds, 0))
    save_result(tmp_path / "a.npz", original, run_id="run-1")
    resume(fresh, tmp_path / "a.npz", run_id="run-1")
    assert (fresh.rounds, fresh.weights.count, fresh.gain.count) == (rounds, max(rounds - 4, 0), rounds)
    assert fresh.independent is not None
    assert fresh.independent.averaged.count == rounds
    fresh.source = original.source
    twin = learner(rounds + 1, preset=preset, rounds_of_run=9, warm_up=4)
    fresh.learn(rounds, *announced(original.specification))
    assert fresh.state.head.tobytes() == twin.state.head.tobytes()
    ours, theirs = fresh.state.warm_up, twin.state.warm_up
    assert (ours is None) == (theirs is None) == (rounds + 1 > 4)
    if ours is not None and theirs is not None:
        assert ours.estimates.tobytes() == theirs.estimates.tobytes()
        assert (ours.first.rounds, ours.second.rounds, ours.second_from) == (2, rounds - 1, 2)


def test_a_baseline_that_was_not_kept_begins_anew(tmp_path: Path) -> None:
    save_result(tmp_path / "a.npz", learner(4, with_baseline=False), run_id="run-1")
    fresh = learner(0)
    resume(fresh, tmp_path / "a.npz", run_id="run-1")
    assert fresh.independent is not None
    assert fresh.independent.steps == 0


def assert_refused(path: Path, text: str, run_id: str = "run-1", **changes: Any) -> None:
    """The file is refused with this sentence, and the learner is as it was."""
    fresh = learner(0, **changes)
    state, weights, independent = fresh.state, fresh.weights, fresh.independent
    with pytest.raises(RunFileError, match=text):
        resume(fresh, path, run_id=run_id)
    assert (fresh.state is state, fresh.weights is weights, fresh.independent is independent) == (True, True, True)
    assert fresh.source.steps == 0


def test_a_file_of_another_run_is_refused(saved: Path) -> None:
    assert_refused(saved, r"site-1.npz has run id 'run-1', and this agent 'run-2'", run_id="run-2")


def test_a_file_of_another_agent_is_refused(saved: Path) -> None:
    assert_refused(saved, "agent id 'site-1', and this agent 'site-2'", name="site-2")


def test_a_file_of_another_specification_is_refused(saved: Path) -> None:
    assert_refused(saved, "specification digest", seed=2)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and then nothing", b"no zip at all"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "site-1.npz"
    path.write_bytes(content)
    assert_refused(path, "site-1.npz cannot be read as the result of an agent")


def test_a_file_that_was_cut_off_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-200])
    assert_refused(saved, "cannot be read")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.npz", "there is no file .*none.npz")


@pytest.mark.parametrize(
    "name", ["run_id", "head", "weights", "steps", "reward_sum", "td_alone_weights", "curve_every"]
)
def test_a_file_that_lacks_something_is_refused(saved: Path, name: str) -> None:
    rewrite(saved, **{name: None})
    assert_refused(saved, f"lacks '{name}'; the file is damaged")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("head", np.zeros(7)),
        ("head", np.array([np.nan, 0.0])),
        ("weights", np.zeros((4, 2))),
        ("gain", np.zeros(1, dtype=np.int64)),
        ("steps", "twelve"),
        ("weights_count", np.zeros(2)),
        ("td_alone_averaged", np.zeros((3, 5))),
        ("reward_sum", np.array(1j)),
        ("with_baseline", np.ones(3, dtype=bool)),
        ("with_baseline", np.array(1.0)),
        ("curve_round", np.array(3)),
        ("curve_value_error", np.array(["x"] * 4)),
        ("curve_td_alone_error", np.array(0.5)),
    ],
)
def test_a_file_with_nonsense_in_it_is_refused(saved: Path, name: str, value: Any) -> None:
    rewrite(saved, **{name: value})
    assert_refused(saved, f"'{name}' in the result of an agent is no")


@pytest.mark.parametrize("name", ["steps", "gain_count", "weights_count", "head_rounds", "last_round"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -2.0, 1.5])
def test_a_count_that_is_none_is_refused(saved: Path, name: str, value: float) -> None:
    rewrite(saved, **{name: value})
    assert_refused(saved, f"'{name}' in the result of an agent is {value!r} and must be a whole number")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    npz.save_npz(tmp_path / "basis.npz", basis=np.eye(2))
    with pytest.raises(RunFileError, match="is not the result of an agent"):
        load_result(tmp_path / "basis.npz")


class Harmful:
    """An object whose unpickling would do something."""

    unpickled = False

    def __reduce__(self) -> Any:
        return setattr, (Harmful, "unpickled", True)


def test_nothing_is_ever_unpickled(saved: Path, tmp_path: Path) -> None:
    rewrite(saved)
    values = npz.load_npz(saved, "a test")
    np.savez(saved, **(values | {"head": np.array([Harmful()], dtype=object)}))
    assert_refused(saved, "cannot be read")
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(RunFileError):
        load_result(tmp_path / "plain.npz")
    buffer = io.BytesIO()
    np.save(buffer, np.array([Harmful()], dtype=object), allow_pickle=True)
    (tmp_path / "array.npz").write_bytes(buffer.getvalue())
    with pytest.raises(RunFileError):
        load_result(tmp_path / "array.npz")
    assert Harmful.unpickled is False


def test_a_write_that_fails_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(archive: Any, *_: Any) -> None:
        archive.fp.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(npz, "_write", full)
    with pytest.raises(RunFileError, match=r"cannot write .*site-1.npz: No space left on device"):
        save_result(saved, learner(5), run_id="run-1")
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["site-1.npz"], "nothing half-written stays behind"


def test_a_crash_in_mid_write_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(npz, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_result(saved, learner(5), run_id="run-1")
    assert saved.read_bytes() == before
    assert len(list(saved.parent.iterdir())) == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="cannot write"):
        save_result(tmp_path / "none" / "a.npz", learner(), run_id="run-1")
