"""The file of a group: it resumes bit for bit, and a damaged one is refused."""

from pathlib import Path

import numpy as np
import pytest
from contract.groups import BOTH, INDICES, announced_to, group_of, single_of, specification

from cospan.client.files.group_file import GROUP, agents_of, load_group
from cospan.client.files.result_file import load_result, resume, save_result
from cospan.client.learning.group_learner import GroupLearner
from cospan.client.value_function import ValueFunction
from cospan.core.linalg.matrices import to_dense
from cospan.core.method import PRESETS
from cospan.wire.errors import RunFileError
from cospan.wire.files.npz import save_npz


@pytest.mark.parametrize("preset", sorted(PRESETS))
@BOTH
@pytest.mark.parametrize("with_baseline", [True, False])
def test_a_group_goes_on_from_its_file_bit_for_bit(
    preset: str, together: bool, with_baseline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cospan.client.learning.group_blocks._MOST", 2)

    def made() -> GroupLearner:
        return group_of("synthetic", preset, together=together, with_baseline=with_baseline)

    group, at, path = made(), announced_to("synthetic", preset), tmp_path / "group.npz"
    for number in range(5):
        group.learn(number, *at)
    save_npz(path, **GROUP.contents(group, "run-1"))
    again = made()
    assert GROUP.resume(again, path, "run-1") == ""
    assert (again.rounds, again.last_round) == (5, 4)
    sent = [to_dense(each.learn(5, *at).contribution.gradient) for each in (group, again)]
    np.testing.assert_array_equal(sent[0], sent[1])
    files = [GROUP.contents(each, "run-1") for each in (group, again)]
    assert files[0].keys() == files[1].keys()
    for key, value in files[0].items():
        np.testing.assert_array_equal(np.asarray(files[1][key]), np.asarray(value), err_msg=key)


def test_a_groups_file_whose_names_are_a_table_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "group.npz"
    group = group_of("synthetic", "paper")
    group.learn(0, specification("synthetic", "paper").initial_basis())
    values = GROUP.contents(group, "run-1")
    save_npz(path, **values | {"agent_ids": np.array([values["agent_ids"]])})
    with pytest.raises(RunFileError, match="'agent_ids'"):
        GROUP.resume(group_of("synthetic", "paper"), path, "run-1")


def test_agents_of_a_groups_file_say_what_their_own_files_say(tmp_path: Path) -> None:
    """All that a summary and a picture are made of; and an agent's own file can be gone on from alone."""
    group, at = group_of("queues", with_baseline=True), announced_to("queues", "practical")
    for number in range(3):
        group.learn(number, *at)
    save_npz(tmp_path / "group.npz", **GROUP.contents(group, "run-1"))
    agents = agents_of(load_group(tmp_path / "group.npz"))
    assert len(agents) == len(INDICES)
    for found, agent in zip(agents, group.agents(), strict=True):
        path = tmp_path / f"{agent.name}.npz"
        save_result(path, agent, run_id="run-1", durable=False)
        own = load_result(path)
        for key, value in found.values.items():
            np.testing.assert_array_equal(value, own.array(key), err_msg=key)
        single = single_of("queues", agent.index)
        assert "was not saved" in resume(single, path, run_id="run-1")
        assert single.rounds == 3


def test_a_value_function_of_one_agent_is_read_from_its_groups_file(tmp_path: Path) -> None:
    """With the same answers and intervals as from a file of its own, of which a large group writes none."""
    group, at = group_of("queues"), announced_to("queues", "practical")
    for number in range(9):
        group.learn(number, *at)
    path = tmp_path / "group.npz"
    save_npz(path, **GROUP.contents(group, "run-1"))
    for agent in group.agents():
        save_result(tmp_path / "own.npz", agent, run_id="run-1", durable=False)
        own = ValueFunction.load(tmp_path / "own.npz")
        found = ValueFunction.load(path, agent=agent.name)
        assert (found.agent_id, found.index, found.seed) == (agent.name, agent.index, own.seed)
        np.testing.assert_array_equal(found.weights, own.weights)
        observations = [1, 7]
        np.testing.assert_array_equal(found.intervals(observations), own.intervals(observations))
        assert found.gain_interval() == own.gain_interval()
    with pytest.raises(RunFileError, match="is what site-"):
        ValueFunction.load(tmp_path / "own.npz", agent="site-0")


def test_of_a_large_group_some_agents_are_tested_for_what_features_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evenly spread over it, at its end alone; they have the numbers that all have where all are tested."""
    monkeypatch.setattr("cospan.client.learning.group_blocks._MOST", 3)
    group, at = group_of("queues"), announced_to("queues", "practical")
    for number in range(12):
        group.learn(number, *at)
    whole = np.asarray(GROUP.contents(group, "run-1")["feature_tests"])
    assert np.isfinite(whole).any(axis=(1, 2)).all()
    monkeypatch.setattr("cospan.client.learning.group_learner.MOST_TESTED", 2)
    some = np.asarray(GROUP.contents(group, "run-1")["feature_tests"])
    tested = np.isfinite(some).any(axis=(1, 2))
    assert 0 < tested.sum() < len(INDICES)
    np.testing.assert_array_equal(some[tested], whole[tested])
    assert GROUP.checkpoint is not None
    assert "feature_tests" not in GROUP.checkpoint(group, "run-1")


def test_a_group_of_no_rounds_can_be_saved_and_gone_on_from(tmp_path: Path) -> None:
    group = group_of("queues")
    save_npz(tmp_path / "group.npz", **GROUP.contents(group, "run-1"))
    again = group_of("queues")
    assert "were not saved" in GROUP.resume(again, tmp_path / "group.npz", "run-1")
    assert (again.rounds, again.last_round) == (0, None)
    assert len(agents_of(load_group(tmp_path / "group.npz"))) == len(INDICES)


def test_what_is_saved_in_the_middle_of_a_round_is_of_the_round_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """One block has learnt the round and another not; the chains then start over."""
    monkeypatch.setattr("cospan.client.learning.group_blocks._MOST", 2)
    group, at = group_of("synthetic"), announced_to("synthetic", "practical")
    group.learn(0, *at)
    before = GROUP.contents(group, "run-1")
    monkeypatch.setattr(group.blocks[1].chains, "advance_those_that_can", lambda steps: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        group.learn(1, *at)
    after = GROUP.contents(group, "run-1")
    for name in ("weights", "head", "head_system", "steps"):
        np.testing.assert_array_equal(after[name], before[name])
    assert before["chain_state"]
    assert not after["chain_state"]
