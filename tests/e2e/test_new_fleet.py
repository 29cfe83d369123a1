"""`docker compose up` in a folder that `cospan new` has made: from a simulator, and from a log."""

from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.stack import WAIT_SECONDS, Stack
from stations import write_stations

from cospan.cli.tools.new_fleet import new_fleet
from cospan.client.logs.log_workload import log_fleet


@pytest.mark.parametrize("source", ["simulator", "csv"])
def test_a_new_fleet_learns_in_containers(
    start: Callable[..., Stack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").mkdir()
    write_stations(tmp_path / "given", stations=1, days=20)
    log = tmp_path / "given/station-00.csv" if source == "csv" else None
    new_fleet("cold-grids", source=source, log=log)
    agents = 1 if source == "csv" else 2
    stack = start(folder=tmp_path / "cold-grids", COSPAN_AGENTS=agents, COSPAN_ROUNDS=20)
    rounds = 20 if log is None else log_fleet(tmp_path / "cold-grids/fleet.toml").rounds_of(24)
    assert stack.end() == 0
    assert {agent.wait(timeout=WAIT_SECONDS)["StatusCode"] for agent in stack.containers("agent")} == {0}
    result = stack.result()
    assert (result["agents"], result["rounds"], result["finish_cause"]) == (agents, rounds, "rounds-reached")
    assert stack.learnt() == [f"site-{index}.npz" for index in range(agents)]
