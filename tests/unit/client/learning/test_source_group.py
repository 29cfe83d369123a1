"""A group of logs: the sum of what its agents would send alone, one file, failures, interrupted waits."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cospan.client.files.group_file import GROUP, group_agents
from cospan.client.group import group_of
from cospan.client.learning.group_blocks import GroupSites
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.learning.source_group import SourceGroup
from cospan.client.logs.log_workload import LogFleet
from cospan.client.logs.mapping import LogMapping, mapping_of
from cospan.client.logs.tables.sites import tables_of
from cospan.client.step_source import SourceInterruptedError
from cospan.core.linalg.matrices import to_dense
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import PRESETS
from cospan.core.specification import RunSpecification
from cospan.wire.errors import RunFileError, WorkloadBehaviourError
from cospan.wire.files.npz import save_npz

NAMES = ("site-0", "site-1", "site-2")
L = 8
MAPPING: LogMapping = mapping_of(
    {
        "log": {"time": "at", "step": 1, "reward": "r"},
        "features": {"x": {"kind": "numeric", "range": [0, 9], "knots": 6}},
    }
)
SPEC = RunSpecification("logs", 5, 2, 3, 12, 1, PRESETS["practical"](L))
BASES = [random_basis(5, 2, np.random.default_rng(number)) for number in range(12)]


def write(folder: Path, rows: Sequence[int] = (140, 40, 70), broken: int | None = None) -> None:
    """Logs of these lengths; every 13th row is missing, and one of site `broken` has too few cells."""
    folder.mkdir(exist_ok=True)
    for site, count in enumerate(rows):
        rng = np.random.default_rng(site)
        lines = [f"{at},{rng.integers(0, 10)},{rng.normal():.3f}\n" for at in range(count) if at % 13 != 12]
        if site == broken:
            lines[40:] = ["9,9\n"]
        (folder / f"log-{site}.csv").write_text("at,x,r\n" + "".join(lines), encoding="utf-8")


def fleet(folder: Path, *, follow: bool = False) -> LogFleet:
    return LogFleet(MAPPING, tables_of(str(folder)), follow=follow)


def group(folder: Path, *, follow: bool = False) -> SourceGroup:
    sites = GroupSites.of(fleet(folder, follow=follow).workload, (0, 1, 2), SPEC.feature_dim, SPEC.seed)
    made = group_of(sites, SPEC, names=NAMES, with_baseline=True)
    assert isinstance(made, SourceGroup)
    return made


def test_each_learns_what_it_would_alone_and_their_gradients_are_summed(tmp_path: Path) -> None:
    write(tmp_path)
    logs = fleet(tmp_path)
    alone = [SiteLearner(logs.make_site(index, 1), SPEC, name=NAMES[index], index=index) for index in range(3)]
    together = group(tmp_path)
    for number, basis in enumerate(BASES):
        single = [each.learn(number, basis, np.eye(2)).contribution for each in alone]
        total = together.learn(number, basis, np.eye(2)).contribution
        expected = sum(to_dense(each.gradient) for each in single)
        np.testing.assert_allclose(to_dense(total.gradient), expected, rtol=1e-12, atol=1e-14)
        assert total.weight == sum(each.weight for each in single)
    for member, each in zip(together.agents(), alone, strict=True):
        np.testing.assert_array_equal(member.weights.mean, each.weights.mean)
        assert member.state.steps == each.state.steps
    assert [warned.agent for warned in together.warnings if warned.kind == "end"] == ["site-1", "site-2"]


def test_one_file_continues_all_with_the_bits_of_a_group_that_was_never_stopped(tmp_path: Path) -> None:
    write(tmp_path / "logs")
    through, first, second = (group(tmp_path / "logs") for _ in range(3))
    for number, basis in enumerate(BASES):
        through.learn(number, basis, np.eye(2))
        if number < 5:
            first.learn(number, basis, np.eye(2))
    path = tmp_path / "group.npz"
    save_npz(path, **GROUP.contents(first, "run"))
    assert GROUP.load(path).text("agent_id") == first.name
    assert [each.text("agent_id") for each in group_agents(path)] == list(NAMES)
    assert GROUP.resume(second, path, "run") == ""
    assert second.last_round == 4
    for number in range(5, 12):
        second.learn(number, BASES[number], np.eye(2))
    np.testing.assert_array_equal(second.weights, through.weights)
    np.testing.assert_array_equal(second.gains, through.gains)
    with pytest.raises(RunFileError, match="saved in another run"):
        GROUP.resume(group(tmp_path / "logs"), path, "another")


def test_a_log_that_cannot_be_read_is_refused_in_the_first_round(tmp_path: Path) -> None:
    write(tmp_path, broken=1)
    with pytest.raises(WorkloadBehaviourError, match="has 2 cells in row"):
        group(tmp_path).learn(0, BASES[0], np.eye(2))


def test_an_agent_whose_log_fails_later_leaves_the_group_and_the_others_learn_on(tmp_path: Path) -> None:
    write(tmp_path)
    together, told = group(tmp_path), []
    together.on_failure.append(lambda member, why: told.append((member.name, member.state.steps, why)))
    together.learn(0, BASES[0], np.eye(2))
    together.members[1].source.advance = _broken  # type: ignore[method-assign]
    assert together.learn(1, BASES[1], np.eye(2)).contribution.weight == 2.0
    assert together.names == ("site-0", "site-2")
    assert told == [("site-1", 8, "the disk is gone")]
    assert together.failures == {"site-1": "the disk is gone"}


def _broken(_steps: int) -> None:
    raise WorkloadBehaviourError("the disk is gone")


def test_an_interrupted_wait_leaves_all_as_they_were(tmp_path: Path) -> None:
    write(tmp_path)
    through, stopped = group(tmp_path), group(tmp_path, follow=True)
    for number in range(4):
        through.learn(number, BASES[number], np.eye(2))
        stopped.learn(number, BASES[number], np.eye(2))
    stopped.interrupt()
    with pytest.raises(SourceInterruptedError):  # site-0 has rows for it, and site-1 has not
        stopped.learn(4, BASES[4], np.eye(2))
    path = tmp_path / "group.npz"
    save_npz(path, **GROUP.contents(stopped, "run"))
    again = group(tmp_path)
    assert GROUP.resume(again, path, "run") == ""
    for number in range(4, 12):
        through.learn(number, BASES[number], np.eye(2))
        again.learn(number, BASES[number], np.eye(2))
    np.testing.assert_array_equal(again.weights, through.weights)
