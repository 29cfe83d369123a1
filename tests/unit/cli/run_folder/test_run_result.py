"""The document of a run's result, and the row of each agent."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cospan.cli.run_folder.progress_log import RoundRow
from cospan.cli.run_folder.run_result import (
    AgentRow,
    DepartedAgent,
    RunOutcome,
    agent_row,
    read_outcome,
    result_document,
    with_medians,
)
from cospan.client.files.agent_result import AgentResult
from cospan.core.method import practical
from cospan.core.specification import RunSpecification, basis_digest

SPEC = RunSpecification("toy", 3, 2, 3, 100, 7, replace(practical(5), head_radius=math.inf))

BASIS = np.eye(3)[:, :2]

OUTCOME = RunOutcome(
    specification=SPEC,
    run_id="abc",
    cause="rounds-reached",
    message="all 100 rounds are done",
    rounds=100,
    seconds=2.0,
    agents=2,
    agent_steps=1440,
    basis=BASIS,
    departures=(DepartedAgent("site-2", 88, "it was silent for 5 s"),),
    subspace_error=0.125,
    rank_in_use=1,
)

AGENTS = (
    AgentRow("site-0", "a place with a long name", 1.5, 1.4, 0.1, 0.02, None, 0.04),
    AgentRow("site-1", "here", -2.0, -2.1, 0.3, 0.04, 0.025, 0.04, shared_weight=0.25, held_share=0.75),
    AgentRow("site-2", "there"),
)

RESULT_KEYS = [
    "workload",
    "agents",
    "rounds",
    "seed",
    "feature_dim",
    "rank",
    "seconds",
    "rounds_per_second",
    "agent_steps",
    "basis_sha256",
    "subspace_error",
    "value_error",
    "gain_error",
    "baselines",
]
"""Of section 5 of the design: an interface."""


def test_the_document_has_the_keys_of_the_interface() -> None:
    document = result_document(OUTCOME, AGENTS)
    assert list(document)[: len(RESULT_KEYS)] == RESULT_KEYS
    assert document["agents"] == 2
    assert document["rounds_per_second"] == 50.0
    assert document["basis_sha256"] == basis_digest(BASIS)
    assert document["value_error"] == pytest.approx(0.03)
    assert document["gain_error"] == pytest.approx(0.2)
    assert document["baselines"] == {"lstd_alone": 0.025, "td_alone": pytest.approx(0.04)}
    assert document["ratio"] == pytest.approx(1.05)
    assert (document["sites_compared"], document["sites_worse_than_alone"]) == (2, 1)
    gone = {"agent_id": "site-2", "round": 88, "cause": "it was silent for 5 s", "asked": False}
    assert document["departures"] == [gone]
    assert (document["shared_weight"], document["rank_in_use"]) == (0.25, 1)
    assert [agent["shared_weight"] for agent in document["per_agent"]] == [None, 0.25, None]
    assert [agent["ratio"] for agent in document["per_agent"]] == [0.5, pytest.approx(1.6), None]
    assert document["method"]["head_radius"] == "inf"
    json.dumps(document, allow_nan=False)


def test_what_a_coordinator_does_not_know_is_null() -> None:
    document = result_document(replace(OUTCOME, subspace_error=None, seconds=0.0, rounds=0))
    unknown = ("subspace_error", "value_error", "gain_error", "rounds_per_second")
    assert [document[key] for key in unknown] == [None] * 4
    assert document["baselines"] == {"lstd_alone": None, "td_alone": None}
    assert result_document(read_outcome(document, SPEC, BASIS)) == document


def test_agents_that_left_are_no_part_of_the_medians() -> None:
    agents = (*AGENTS[:2], replace(AGENTS[2], value_error=99.0, td_alone_error=99.0))
    assert result_document(OUTCOME, agents)["value_error"] == pytest.approx(0.03)


def agent_result(
    rounds: list[int], joint: list[float], independent: list[list[float]], **values: Any
) -> AgentResult:
    arrays = {
        "agent_id": "site-0",
        "label": "here",
        "mean_reward": 1.0,
        "gain": [2.0],
        "gain_error": math.nan,
        "value_error": joint[-1] if joint else math.nan,
        "bounded_rounds": 0,
        "curve_every": np.array(1),
        "curve_round": np.array(rounds, dtype=np.int64),
        "curve_value_error": np.array(joint),
        "curve_lstd_alone_error": np.full(len(rounds), 0.75),
        "curve_td_alone_error": np.array(independent),
        **values,
    }
    return AgentResult({name: np.asarray(value) for name, value in arrays.items()})


def test_an_agents_row_has_the_best_of_its_own_steps_and_no_nan() -> None:
    row = agent_row(agent_result([0, 1], [0.5, 0.25], [[1.0, 2.0], [math.inf, 0.5]]))
    assert (row.value_error, row.td_alone_error, row.ratio, row.gain_error) == (0.25, 0.5, 0.5, None)
    assert agent_row(agent_result([0], [math.nan], [[]])).td_alone_error is None
    assert agent_row(agent_result([0], [math.nan], [[]])).ratio is None
    assert agent_row(agent_result([0], [math.nan], [[]])).shared_weight is None
    assert agent_row(agent_result([0], [math.nan], [[]], shared_weight=0.75)).shared_weight == 0.75


def test_the_correlation_of_td_errors_is_a_row_without_nan_or_null() -> None:
    row = agent_row(agent_result([0], [0.25], [[]], td_error_correlation=[0.5, math.nan]))
    assert row.td_error_correlation == (0.5, None)
    document = result_document(replace(OUTCOME, departures=()), [row, *AGENTS])
    assert [each["td_error_correlation"] for each in document["per_agent"]] == [[0.5, None], None, None, None]


def test_the_ratio_is_to_the_best_alone() -> None:
    lstd = {"lstd_alone_error": 0.2, "lstd_alone_best_error": 0.1}
    row = agent_row(agent_result([0], [0.25], [[0.5]], **lstd))
    assert (row.lstd_alone_error, row.lstd_alone_best_error, row.ratio) == (0.2, 0.1, 1.25)
    assert agent_row(agent_result([0], [0.25], [[0.1]], **lstd)).ratio == 2.5
    assert agent_row(agent_result([0], [0.25], [[]], lstd_alone_error=math.nan)).ratio is None


def test_medians_by_round_take_each_agents_own_best() -> None:
    agents = (
        agent_result([0, 1, 2], [1.0, 0.5, math.nan], [[3.0, 1.0], [0.5, 2.0], [math.nan, math.inf]]),
        agent_result([1, 2], [0.3, 0.2], [[1.5, 2.5], [9.0, 0.4]]),
    )
    rows = with_medians([RoundRow(number, 0.1, 2, 0.5, 0.0) for number in range(4)], agents)
    assert [row.value_error for row in rows] == [1.0, 0.4, 0.2, None]
    assert [row.td_alone_error for row in rows] == [1.0, 1.0, 0.4, None]
    assert [row.lstd_alone_error for row in rows] == [0.75, 0.75, 0.75, None]
