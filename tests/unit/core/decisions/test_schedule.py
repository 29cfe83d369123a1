"""Which rounds evaluate and which try: every round has one place, and spans cover what turns the basis."""

import pytest

from cospan.core.decisions.schedule import Place, Schedule

SCHEDULE = Schedule(steps=2, evaluation_rounds=3, trial_rounds=2)


def test_rounds_of_evaluation_and_of_trial_take_turns() -> None:
    places = [SCHEDULE.place(number) for number in range(12)]
    assert places[:5] == [
        Place(0, False, 0),
        Place(0, False, 1),
        Place(0, False, 2),
        Place(0, True, 0),
        Place(0, True, 1),
    ]
    assert places[5:10] == [each._replace(step=1) for each in places[:5]]
    assert places[10:] == [Place(2, False, 0), Place(2, False, 1)]
    assert [SCHEDULE.learning_round(number) for number in range(12)] == [0, 1, 2, 3, 3, 0, 1, 2, 3, 3, 0, 1]
    assert [number for number in range(12) if SCHEDULE.ends_evaluation(number)] == [2, 7]
    assert SCHEDULE.rounds == 10


def test_a_run_without_steps_is_as_it_was() -> None:
    nothing = Schedule()
    assert [nothing.learning_round(number) for number in range(5)] == list(range(5))
    assert not any(nothing.is_trial(number) or nothing.ends_evaluation(number) for number in range(5))
    assert nothing.learning_spans(3, 9) == [(3, 9)]


@pytest.mark.parametrize("first", range(13))
@pytest.mark.parametrize("count", range(1, 14))
def test_spans_have_every_round_that_turns_the_basis_once(first: int, count: int) -> None:
    spans = SCHEDULE.learning_spans(first, first + count)
    found = [number for start, stop in spans for number in range(start, stop)]
    rounds = range(first, first + count)
    assert found == [SCHEDULE.learning_round(number) for number in rounds if not SCHEDULE.is_trial(number)]
