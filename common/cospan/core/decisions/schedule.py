"""Which rounds of a run evaluate policies, and in which new ones are tried."""

from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """Where a round stands in the improvement steps of a run.

    Attributes:
        step: the improvement step, from 0 on; the number of steps after the last one.
        is_trial: whether new policies are tried in it; else the held ones are evaluated.
        number: of the round within its evaluation or its trial, from 0 on.
    """

    step: int
    is_trial: bool
    number: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Rounds of evaluation and then of trial, `steps` times; the rounds after them evaluate what is held then.

    To the learning rule each evaluation is a run of its own that begins with the basis of the one before: all that
    depends on the number of the round counts from the beginning of the evaluation (`learning_round`).

    Attributes:
        steps: improvement steps; 0 for a run that judges policies and changes none.
        evaluation_rounds: of each step, 1 or more where there are steps.
        trial_rounds: of each step, 1 or more where there are steps.
    """

    steps: int = 0
    evaluation_rounds: int = 0
    trial_rounds: int = 0

    @property
    def step_rounds(self) -> int:
        """Of one step."""
        return self.evaluation_rounds + self.trial_rounds

    @property
    def rounds(self) -> int:
        """Of all steps."""
        return self.steps * self.step_rounds

    def place(self, round_number: int) -> Place:
        """Where round t stands."""
        if round_number >= self.rounds:
            return Place(self.steps, is_trial=False, number=round_number - self.rounds)
        step, number = divmod(round_number, self.step_rounds)
        if number < self.evaluation_rounds:
            return Place(step, is_trial=False, number=number)
        return Place(step, is_trial=True, number=number - self.evaluation_rounds)

    def is_trial(self, round_number: int) -> bool:
        """Whether new policies are tried in round t, in which nothing is learnt and the basis stays as it is."""
        return self.place(round_number).is_trial

    def learning_round(self, round_number: int) -> int:
        """The number of round t to the learning rule; of a round of trial, that of the round after evaluation."""
        place = self.place(round_number)
        return self.evaluation_rounds if place.is_trial else place.number

    def ends_evaluation(self, round_number: int) -> bool:
        """Whether a trial follows round t, so that all that it brought is to be made use of."""
        return not self.is_trial(round_number) and self.is_trial(round_number + 1)

    def learning_spans(self, first: int, last: int) -> list[tuple[int, int]]:
        """The rounds from `first` to below `last` in which the basis may turn, as `learning_round`s."""
        found = []
        while first < last:
            place = self.place(first)
            if place.step == self.steps:
                found.append((place.number, place.number + last - first))
                break
            end = min(last, (place.step + 1) * self.step_rounds)
            if not place.is_trial:
                found.append((place.number, min(place.number + end - first, self.evaluation_rounds)))
            first = end
        return found
