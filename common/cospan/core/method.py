"""The constants of the learning rule, and the two presets."""

import math
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache


class HeadUpdate(Enum):
    """When an agent corrects its head within a round."""

    END_OF_ROUND = "end-of-round"
    """One L-step correction at the end of the round: Algorithm 1."""
    EVERY_STEP = "every-step"
    """A TD(λ) correction at every environment step, the basis frozen; the gradients of the round are summed."""
    LEAST_SQUARES = "least-squares"
    """No step: after every round the head solves the r × r LSTD(λ) system of the agent's own transitions."""
    FULL_HISTORY = "full-history"
    """As with least squares, but the agent keeps the d × d system: head and gradient are those of all its
    transitions so far in the basis of today, however often the basis has moved since."""


class Aggregation(Enum):
    """What of a round's gradients moves the basis; all but the mean bound what a few agents can do to it."""

    MEAN = "mean"
    """The mean of eq. 8: one agent can move it anywhere."""
    CLIPPED = "clipped"
    """The mean of gradients that are cut to one length."""
    TRIMMED = "trimmed"
    """For every entry the mean without its largest and smallest values."""
    GEOMETRIC_MEDIAN = "geometric-median"
    """The matrix whose distances to all gradients have the least sum."""


MAX_HISTORY_DIM = 4096
"""The largest d with which agents keep d × d numbers: 128 MiB each."""
DEFAULT_MIN_STEPS = 2
"""The fewest steps a round with which an agent takes part by default: with 1, every upload is of a single step."""


_ROW_SUMS_GROWTH = 1.25
NO_BOUND_DEGREES = 90.0
_FIRST_TURN_DEGREES = 80.0
_TURN_ROUNDS = 10.0
"""The basis is found in the first rounds: there a sound step turns it by up to 72 degrees, and by 37 in round 5 at
the most. The bound falls from the first number to `largest_turn`, to a quarter of the way after so many rounds."""


@dataclass(frozen=True, slots=True)
class Method:
    """Everything the learning rule needs to know besides d, r and the data.

    Attributes:
        steps_per_round: L ≥ 1, environment steps of one agent in one round.
        head_update: when the head is corrected.
        head_step: β > 0.
        gain_step: γ, 0 < γ ≤ 1.
        head_radius: U > 0, may be infinite: no ball. In reward per feature; σ / ρ where `reward_scaled`.
        basis_step: ζ ≥ 0; 0 freezes the basis.
        implicit_head_step: whether the head's step is β / (1 + β‖Bᵀφ‖²).
        preconditioned: whether the mean gradient is preconditioned by the heads' second moment.
        preconditioner_floor: ε > 0 of the preconditioner.
        decay_horizon: c ≥ 0 of the step decay (c / (c + t))^p, in environment steps; 0 for constant steps. ζ
            does not decay with corrections from the full history.
        decay_power: p of the step decay, 0 ≤ p ≤ 1.
        trace_decay: λ of the eligibility trace, which begins anew with every round, 0 ≤ λ < 1; not used with
            corrections at the end of the round. 0 is TD(0).
        forgetting: c ≥ 0 of heads by least squares: the data of round k weigh about k^c; 0 forgets nothing.
        row_scaled: whether the coordinator's step is divided, for each feature: by the running size of its
            gradients, and ζ is then about the length by which a row moves; with corrections from the full history
            by the mean of the agents' row sums of |A|, and ζ = 1 is then the whole step.
        reward_scaled: whether β, U and all that an agent sends are in its own units (`cospan.core.learning.units`):
            σ, the standard deviation of its rewards, and ρ, the root mean square norm of its features. What it
            learns for itself is in the units of its data either way.
        explained_power: p ≥ 0: with corrections from the full history, an agent's gradient counts with the p-th
            power of the share of its rewards' system that the subspace explains; 0 counts all alike.
        warm_up_rounds: W, 0 for none, else 2 or more: rounds in which nothing is learnt but the first basis, from
            two estimates of every agent (`cospan.core.aggregation.warm_start`); agents keep d × d numbers
            meanwhile.
        aggregation: what of the gradients moves the basis (`cospan.core.aggregation.robust`).
        trimmed_share: β of `trimmed`, 0 < β < 1/2: so much is left out on each side.
        clip_norm: τ of `clipped`, the longest that an agent's gradient counts, without dimension where
            `reward_scaled`; 0 for the round's median.
        largest_turn: the largest angle, in degrees, by which one round's step turns the basis, 0.01 to 90; 90 for
            no bound. In the first rounds it is larger: see `largest_turn_between`.
    """

    steps_per_round: int
    head_update: HeadUpdate
    head_step: float
    gain_step: float
    head_radius: float
    basis_step: float
    implicit_head_step: bool = False
    preconditioned: bool = False
    preconditioner_floor: float = 0.05
    decay_horizon: float = 0.0
    decay_power: float = 0.0
    trace_decay: float = 0.0
    forgetting: float = 0.0
    row_scaled: bool = False
    reward_scaled: bool = False
    explained_power: float = 0.0
    warm_up_rounds: int = 0
    aggregation: Aggregation = Aggregation.MEAN
    trimmed_share: float = 0.25
    clip_norm: float = 0.0
    largest_turn: float = NO_BOUND_DEGREES

    @property
    def sends_row_sums(self) -> bool:
        """Whether agents send the row sums of |A| with their gradients, in some of the rounds."""
        return self.row_scaled and self.head_update is HeadUpdate.FULL_HISTORY

    def sends_row_sums_in(self, round_number: int) -> bool:
        """Whether uploads of round t carry row sums; in the other rounds the last ones scale the step."""
        since = round_number - self.warm_up_rounds
        return self.sends_row_sums and since >= 0 and takes_row_sums(since)

    @property
    def basis_step_decays(self) -> bool:
        """Whether ζ decays with the other steps; the noise of gradients of the full history fades by itself."""
        return self.head_update is not HeadUpdate.FULL_HISTORY

    @property
    def averaging_power(self) -> float:
        """η of the averaged iterates: solutions over the full history wander little, and a long average lags."""
        return 15.0 if self.head_update is HeadUpdate.FULL_HISTORY else 3.0

    def warms_up_in(self, round_number: int) -> bool:
        """Whether round t belongs to the warm-up, so that the basis does not move by gradients."""
        return round_number < self.warm_up_rounds

    def brings_estimates_in(self, round_number: int) -> bool:
        """Whether round t is the warm-up's last: its uploads carry [a b], d × 2, in place of a gradient."""
        return round_number == self.warm_up_rounds - 1

    def largest_turn_between(self, first: int, last: int) -> float:
        """The largest angle, in degrees, from the basis of one round to that of a later one; 90 for no bound.

        In round t the step turns it by at most a + (80° − a)·(10 / (10 + t − W))², a being `largest_turn` and W the
        number of warm-up rounds; angles add up. A warm-up leaves the basis as it is, and its end may
        turn it anywhere.
        """
        begin = max(first, self.warm_up_rounds)
        jumps = first < self.warm_up_rounds <= last
        if self.largest_turn >= NO_BOUND_DEGREES or jumps or self.largest_turn * (last - begin) >= NO_BOUND_DEGREES:
            return NO_BOUND_DEGREES
        excess = max(0.0, _FIRST_TURN_DEGREES - self.largest_turn)
        total = 0.0
        for number in range(begin - self.warm_up_rounds, last - self.warm_up_rounds):
            total += self.largest_turn + excess * (_TURN_ROUNDS / (_TURN_ROUNDS + number)) ** 2
        return min(total, NO_BOUND_DEGREES)

    def problems(self) -> list[str]:
        """Every constant that is out of its range, one sentence each; empty when all is well."""
        allowed = [
            ("steps_per_round", 1 <= self.steps_per_round < 2**32, "1 to 2^32 − 1"),
            ("head_step", 0.0 < self.head_step < math.inf, "above 0 and finite"),
            ("gain_step", 0.0 < self.gain_step <= 1.0, "above 0, at most 1"),
            ("head_radius", self.head_radius > 0.0, "above 0 (inf for no ball)"),
            ("basis_step", 0.0 <= self.basis_step < math.inf, "0 or more and finite"),
            ("preconditioner_floor", 0.0 < self.preconditioner_floor < math.inf, "above 0 and finite"),
            ("decay_horizon", 0.0 <= self.decay_horizon < math.inf, "0 or more and finite"),
            ("decay_power", 0.0 <= self.decay_power <= 1.0, "0 to 1"),
            ("trace_decay", 0.0 <= self.trace_decay < 1.0, "0 or more and below 1"),
            ("forgetting", 0.0 <= self.forgetting < math.inf, "0 or more and finite"),
            ("explained_power", 0.0 <= self.explained_power < math.inf, "0 or more and finite"),
            ("warm_up_rounds", self.warm_up_rounds == 0 or 2 <= self.warm_up_rounds < 2**32, "0, or 2 or more"),
            ("trimmed_share", 0.0 < self.trimmed_share < 0.5, "above 0 and below 0.5"),
            ("clip_norm", 0.0 <= self.clip_norm < math.inf, "0 (the round's median), or above 0 and finite"),
            ("largest_turn", 0.01 <= self.largest_turn <= NO_BOUND_DEGREES, "0.01 to 90 degrees (90: no bound)"),
        ]
        return [f"{name} is {getattr(self, name)!r}; it must be {text}" for name, ok, text in allowed if not ok]


def paper(steps_per_round: int) -> Method:
    """Algorithm 1 of arXiv:2603.02426 and nothing else: one L-step correction a round, constant steps.

    The paper leaves β, γ, U and ζ open; these are the ones of the synthetic experiments here.
    """
    return Method(
        steps_per_round=steps_per_round,
        head_update=HeadUpdate.END_OF_ROUND,
        head_step=0.1,
        gain_step=0.02,
        head_radius=100.0,
        basis_step=0.3,
    )


def practical(steps_per_round: int) -> Method:
    """Least squares over the full history, with one set of constants for every workload (docs/adr/0006).

    For d up to some hundreds: an agent keeps d² numbers. The steps and their decay are those of independent TD, the
    baseline, alone.
    """
    return replace(
        compact(steps_per_round),
        head_update=HeadUpdate.FULL_HISTORY,
        basis_step=1.0,
        trace_decay=0.0,
        forgetting=0.0,
        explained_power=2.0,
        largest_turn=5.0,
    )


def compact(steps_per_round: int) -> Method:
    """Least squares in r × r numbers an agent, for features so many that d² are too many (docs/adr/0004)."""
    return Method(
        steps_per_round=steps_per_round,
        head_update=HeadUpdate.LEAST_SQUARES,
        head_step=1.5,
        gain_step=0.01,
        head_radius=math.inf,
        basis_step=0.1,
        implicit_head_step=True,
        preconditioned=True,
        preconditioner_floor=0.1,
        decay_horizon=400.0,
        decay_power=0.7,
        trace_decay=0.7,
        forgetting=4.0,
        row_scaled=True,
        reward_scaled=True,
        largest_turn=20.0,
    )


PRESETS = {"paper": paper, "practical": practical, "compact": compact}


@lru_cache(maxsize=256)
def takes_row_sums(number: int) -> bool:
    """Whether row sums are sent in a round, counted from the first after the warm-up.

    They are in rounds 0 to 5, 7, 9, 12, 15, 19, …: each the first that is at least a quarter later than the last.
    """
    due = 0
    while due < number:
        due = max(due + 1, math.ceil(_ROW_SUMS_GROWTH * due))
    return due == number
