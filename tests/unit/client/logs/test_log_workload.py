"""Logs as a workload: by name, from frames, and to the end of all of them."""

from pathlib import Path

import pandas
import polars
import pytest

from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.learning.run_config import specify
from cospan.client.logs.log_source import LogSource
from cospan.client.logs.log_workload import LogFleet, log_fleet, reference_of
from cospan.client.logs.tables.batch import TableError
from cospan.client.workload import SourceSite
from cospan.core.method import HeadUpdate
from cospan.wire.errors import InvalidValueError, WorkloadError

MAPPING = {
    "log": {"reward": "r", "time": "t", "step": 1},
    "run": {"rank": 2, "steps_per_round": 10},
    "features": {"x": {"kind": "numeric", "range": [0, 9], "knots": 5}},
}
TOML = """
[log]
data = "logs"
reward = "r"
time = "t"
step = 1
[run]
rank = 2
steps_per_round = 10
[features.x]
kind = "numeric"
range = [0, 9]
knots = 5
"""


def frame(rows: int) -> pandas.DataFrame:
    return pandas.DataFrame(
        {"t": range(rows), "x": [t % 10 for t in range(rows)], "r": [t % 7 for t in range(rows)]}
    )


@pytest.fixture
def mapping_file(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    for name, rows in (("north", 25), ("south", 61)):
        frame(rows).to_csv(tmp_path / "logs" / f"{name}.csv", index=False)
    path = tmp_path / "fleet.toml"
    path.write_text(TOML, encoding="utf-8")
    return path


def test_the_sites_of_a_fleet_are_its_files_and_its_rounds_those_of_the_longest(mapping_file: Path) -> None:
    workload = load_workload(reference_of(mapping_file))
    assert (workload.max_agents, workload.rank, workload.steps_per_round) == (2, 2, 10)
    assert [make_site(workload, index, 0).label for index in (0, 1)] == ["north", "south"]
    assert workload.rounds_of is not None
    assert (workload.rounds_of(10), workload.rounds_of(60), workload.rounds_of(59)) == (6, 1, 2)
    assert workload.describe is not None
    assert list(workload.describe()) == [
        "north: 24 transitions in 25 rows",
        "south: 60 transitions in 61 rows",
    ]
    with pytest.raises(WorkloadError, match="no site 2"):
        make_site(workload, 2, 0)


def test_a_run_ends_when_all_logs_are_at_their_end(mapping_file: Path) -> None:
    reference = reference_of(mapping_file)
    assert specify(reference).rounds == 6
    assert specify(reference, rounds=50).rounds == 50
    assert specify(reference, steps_per_round=20).rounds == 3


def test_a_long_log_has_longer_rounds_and_not_more_of_them(mapping_file: Path) -> None:
    mapping_file.write_text(TOML.replace("steps_per_round = 10", ""), encoding="utf-8")
    reference = reference_of(mapping_file)
    assert (specify(reference).method.steps_per_round, specify(reference).rounds) == (24, 3)
    frame(30_001).to_csv(mapping_file.parent / "logs/east.csv", index=False)
    assert (specify(reference).method.steps_per_round, specify(reference).rounds) == (100, 300)
    assert (specify(reference, steps_per_round=50).rounds, specify(reference, rounds=7).rounds) == (600, 7)
    assert specify(reference_of(mapping_file, follow=True)).method.steps_per_round == 24


def test_the_log_of_one_agent_is_that_of_any_index(mapping_file: Path) -> None:
    workload = load_workload(reference_of(mapping_file, str(mapping_file.parent / "logs/south.csv"), one=True))
    site = make_site(workload, 17, 0)
    assert isinstance(site, SourceSite)
    assert site.label == "south"
    assert isinstance(site.open_source("site-17"), LogSource)


def test_a_mapping_alone_has_features_for_a_coordinator(mapping_file: Path) -> None:
    workload = load_workload(reference_of(mapping_file, one=True))
    site = make_site(workload, 0, 0)
    assert site.features.dim == 4
    assert isinstance(site, SourceSite)
    with pytest.raises(InvalidValueError, match="give one with --log"):
        site.open_source("site-0")


def test_frames_are_a_fleet(mapping_file: Path) -> None:
    fleet = LogFleet.of_frames({"a": frame(25), "b": polars.from_pandas(frame(61))}, MAPPING)
    assert fleet.rounds_of(10) == log_fleet(mapping_file).rounds_of(10)
    with pytest.raises(InvalidValueError, match="there are no frames"):
        LogFleet.of_frames({}, MAPPING)


def test_a_log_that_cannot_be_learnt_from_is_refused_before_a_run(mapping_file: Path) -> None:
    (mapping_file.parent / "logs/east.csv").write_text("t,x\n1,2\n", encoding="utf-8")
    with pytest.raises(TableError, match=r"east\.csv has no column 'r'"):
        specify(reference_of(mapping_file))


def test_gaps_and_errors_of_l_steps_do_not_go_together(mapping_file: Path) -> None:
    with pytest.raises(InvalidValueError, match="choose another preset"):
        specify(reference_of(mapping_file), head_update=HeadUpdate.END_OF_ROUND)


def test_a_log_that_is_followed_has_no_end(mapping_file: Path) -> None:
    workload = load_workload(reference_of(mapping_file, follow=True))
    assert workload.rounds_of is None
    assert workload.describe is not None
    assert workload.describe() == []


def test_data_that_is_not_there_is_named(mapping_file: Path) -> None:
    with pytest.raises(InvalidValueError, match="there is no file or folder"):
        load_workload(reference_of(mapping_file, "elsewhere"))
    mapping_file.write_text(TOML.replace('data = "logs"', ""), encoding="utf-8")
    with pytest.raises(InvalidValueError, match="names no data"):
        load_workload(reference_of(mapping_file))
