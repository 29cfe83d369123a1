"""`FleetResult.to_frame`: the numbers of `result.json` and `rounds.csv` as tables."""

import sys

import numpy as np
import pytest

from cospan.cli.run_folder.progress_log import COLUMNS
from cospan.cli.run_folder.run_result import AgentRow, _agent_document
from cospan.simulation import Fleet, FleetResult
from cospan.wire.errors import InvalidValueError


@pytest.fixture(scope="module")
def result() -> FleetResult:
    return Fleet("queues", agents=3, rounds=9, seed=1).run(progress=False)


def test_a_row_is_an_agent_and_columns_are_named_as_in_the_run_result(result: FleetResult) -> None:
    frame = result.to_frame()
    assert frame.index.name == "id"
    assert list(frame.index) == ["site-0", "site-1", "site-2"]
    named = {"id", *frame.columns} - {"index", "steps", "departure"}
    assert named <= _agent_document(AgentRow("site-0", "")).keys()
    assert frame.loc["site-1", "gain"] == result.agents[1].gain
    assert frame["label"].tolist() == [agent.label for agent in result.agents]
    alone = np.minimum(result.lstd_alone_errors, result.td_alone_errors)
    np.testing.assert_array_equal(frame["ratio"], frame["value_error"] / alone)
    assert frame["departure"].tolist() == ["", "", ""]


def test_a_row_is_a_round(result: FleetResult) -> None:
    frame = result.to_frame("rounds")
    assert [frame.index.name, *frame.columns] == list(COLUMNS)
    assert frame.index.tolist() == list(range(9))
    np.testing.assert_array_equal(frame["value_error"], result.rounds["value_error"])


def test_what_cannot_be_had_is_a_sentence(result: FleetResult, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidValueError, match="there is no table of 'sites'; take 'agents' or 'rounds'"):
        result.to_frame("sites")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InvalidValueError, match="to_frame needs pandas; pip install pandas"):
        result.to_frame()
