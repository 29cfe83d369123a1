"""Traces: all rounds of a short run, and of a long one as many as fit, evenly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cospan.client.files.agent_result import AgentResult
from cospan.client.files.curve_values import learning_curves
from cospan.client.learning.learning_curve import MOST_ROUNDS, LearningCurve, most_rounds


def add(trace: LearningCurve[float], number: int) -> None:
    value = float(number)
    trace.add(
        number,
        value_error=value,
        lstd_alone_error=value,
        td_alone_error=np.array([value]),
        gain_estimate=value,
        mean_squared_td_error=value,
    )


def traced(rounds: list[int], most: int = MOST_ROUNDS) -> LearningCurve[float]:
    """A trace whose every number is that of the round."""
    trace = LearningCurve[float](most=most)
    for number in rounds:
        add(trace, number)
    return trace


def columns(trace: LearningCurve[float]) -> list[list[float]]:
    errors = [float(each[0]) for each in trace.td_alone_error]
    return [trace.value_error, trace.lstd_alone_error, errors, trace.gain_estimate, trace.mean_squared_td_error]


def test_all_rounds_are_kept_while_they_fit() -> None:
    trace = traced(list(range(8)), most=8)
    assert (trace.round, trace.every) == (list(range(8)), 1)


@given(rounds=st.lists(st.integers(0, 400), min_size=1, unique=True).map(sorted), most=st.integers(2, 40))
def test_of_more_rounds_the_multiples_and_the_newest_are_kept(rounds: list[int], most: int) -> None:
    trace = traced(rounds, most)
    assert len(trace.round) <= most
    assert trace.round == [each for each in rounds if each % trace.every == 0 or each == rounds[-1]]
    assert all(column == trace.round for column in columns(trace))
    assert trace.every & (trace.every - 1) == 0
    if len(rounds) <= most:
        assert trace.every == 1


def test_a_long_run_is_evenly_covered() -> None:
    trace = traced(list(range(1000)), most=100)
    assert trace.every == 16
    assert trace.round == [*range(0, 1000, 16), 999]


def test_a_trace_that_is_gone_on_with_is_thinned_as_if_it_had_never_stopped() -> None:
    whole, half = traced(list(range(700)), most=50), traced(list(range(333)), most=50)
    again = LearningCurve(*[list(column) for column in half._columns()], half.every, half.most)
    for number in range(333, 700):
        add(again, number)
    assert (again.round, again.every) == (whole.round, whole.every)
    assert columns(again) == columns(whole)


@pytest.mark.parametrize(("numbers", "rounds"), [(0, 16_384), (6, 16_384), (13_000, 322), (10**6, 256)])
def test_a_large_group_keeps_fewer_rounds(numbers: int, rounds: int) -> None:
    assert most_rounds(numbers) == rounds


def recorded(rounds: list[int], **values: int) -> AgentResult:
    values = {"curve_every": 1} | values
    found = {"curve_round": np.array(rounds, dtype=np.int64), "curve_value_error": np.array(rounds, dtype=float)}
    return AgentResult(found | {name: np.array(value) for name, value in values.items()})


def test_learning_curves_are_compared_in_the_rounds_that_the_coarsest_keeps() -> None:
    """What an agent has that left early, or came late, would stand for all of them else."""
    left_early, came_late = recorded([0, 2, 4, 5], curve_every=2), recorded([6, 7, 8, 9])
    whole, old = recorded([0, 4, 8, 9], curve_every=4), recorded([])
    rounds, values = learning_curves(
        [left_early, came_late, whole, old], lambda agent: agent.array("curve_value_error")
    )
    assert [each.tolist() for each in rounds] == [[0, 4], [8, 9], [0, 4, 8, 9], []]
    assert [each.tolist() for each in values] == [each.tolist() for each in rounds]
    rounds, _ = learning_curves([came_late, old], lambda agent: agent.array("curve_value_error"))
    assert rounds[0].tolist() == [6, 7, 8, 9], "nothing was thinned"
    assert learning_curves([], lambda agent: agent.array("curve_value_error")) == ([], [])
