"""The constants of the learning rule, and its three presets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from typing import Any

from cospan.core.fields import RULE, Entry, Range, about, range_problems


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
    POSTERIOR = "posterior"
    """As with the full history, but all d moment equations count, weighed by their noise, and a prior that the
    fleet learns, of basis and head covariance, holds what the agent's own data leave open."""


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
MAX_POSTERIOR_DIM = 2048
"""The largest d with posterior head updates: there a refresh takes 10 to 20 s, eight times as long at twice the d,
and an agent keeps some 0.8 GiB."""
DEFAULT_MIN_STEPS = 2
"""The fewest steps a round with which an agent takes part by default: with 1, every upload is of a single step."""


_POOLED_GROWTH = 1.25
_REFRESH_GROWTH = 1.15
MANY_AGENTS = 1_000
"""Agents of a fleet beyond which `refresh_growth` is by default that of many."""
GROWTH_OF_MANY = 1.5
SAMPLE_OF_MANY = 1_000
"""Agents of such a fleet, at least, that are refreshed in all of these rounds."""
NO_BOUND_DEGREES = 90.0
_FIRST_TURN_DEGREES = 80.0
_TURN_ROUNDS = 10.0
"""Rounds after which a quarter is left of the difference between the bound of round 0, `first_turn` (or
`_FIRST_TURN_DEGREES`), and the final bound, `largest_turn`. In the first rounds a sound step turns the basis by up
to 72 degrees, and by at most 37 in round 5."""


_POSITIVE = Range(above=0, below=math.inf)


def _constant(meaning: str, *, unset: str = "the preset's", **more: Any) -> Mapping[str, Entry]:
    """The metadata of a constant of the learning rule."""
    return about(meaning, group=RULE, unset=unset, **more)


@dataclass(frozen=True, slots=True)
class Method:
    """Everything the learning rule needs to know besides d, r and the data.

    Each field's metadata is its description (`cospan.core.fields`): symbol, unit, range and meaning, which
    docs/notation.md has as a table. Units: where `reward_scaled`, σ is the standard deviation of an agent's rewards
    and ρ the root mean square norm of its features (`cospan.core.learning.units`); else both are 1.
    """

    steps_per_round: int = field(
        metadata=_constant(
            "environment steps of each agent in one round",
            symbol="L",
            range=Range(least=1, most=2**32 - 1),
            metavar="L",
            unset="the workload's",
        )
    )
    head_update: HeadUpdate = field(
        metadata=_constant(
            "when an agent updates its head: end-of-round, every-step, least-squares after each round, "
            "full-history, which is least squares over all its transitions, or posterior, which weighs them and "
            "uses a prior that the fleet learns",
            metavar="WHEN",
        )
    )
    head_step: float = field(
        metadata=_constant("step size of the head", symbol="β", unit="1 / ρ²", range=_POSITIVE)
    )
    gain_step: float = field(
        metadata=_constant("step size of the gain estimate", symbol="γ", range=Range(above=0, most=1))
    )
    head_radius: float = field(
        metadata=_constant(
            "radius of the ball that the head is projected onto",
            symbol="U",
            unit="σ / ρ",
            range=Range(above=0, note="inf: no ball"),
        )
    )
    basis_step: float = field(
        metadata=_constant(
            "step size of the basis", symbol="ζ", range=Range(least=0, below=math.inf, note="0: frozen")
        )
    )
    implicit_head_step: bool = field(
        default=False, metadata=_constant("whether the step of the head is the implicit one, β / (1 + β‖Bᵀφ‖²)")
    )
    preconditioned: bool = field(
        default=False, metadata=_constant("whether the second moment of the heads preconditions the mean gradient")
    )
    preconditioner_floor: float = field(
        default=0.05, metadata=_constant("regulariser of the preconditioner", symbol="ε", range=_POSITIVE)
    )
    """Of (W̄ + ε tr(W̄)/r I)⁻¹, W̄ being the mean of the heads' second moments."""
    decay_horizon: float = field(
        default=0.0,
        metadata=_constant(
            "horizon of the step decay (c / (c + t))^p, in environment steps",
            symbol="c",
            unit="steps",
            range=Range(least=0, below=math.inf, note="0: constant steps"),
        ),
    )
    """With head updates from the full history ζ does not decay."""
    decay_power: float = field(
        default=0.0, metadata=_constant("exponent of the step decay", symbol="p", range=Range(least=0, most=1))
    )
    trace_decay: float = field(
        default=0.0,
        metadata=_constant(
            "decay of the eligibility trace within a round",
            symbol="λ",
            range=Range(least=0, below=1, note="0: TD(0)"),
        ),
    )
    """The trace restarts with every round. Not used with updates at the end of the round."""
    forgetting: float = field(
        default=0.0,
        metadata=_constant(
            "exponent of forgetting in least-squares heads, where the data of round k weigh about k^ω",
            symbol="ω",
            range=Range(least=0, below=math.inf, note="0: nothing is forgotten"),
        ),
    )
    row_scaled: bool = field(
        default=False, metadata=_constant("whether the step of the basis is scaled for each feature")
    )
    """By the running size of the feature's gradients, and ζ is then about the length by which a row moves; with
    updates from the full history by the mean of the agents' row sums of |A|, and ζ = 1 is the whole step."""
    reward_scaled: bool = field(
        default=False,
        metadata=_constant("whether each agent learns and sends in its own units of reward, σ, and feature, ρ"),
    )
    """What an agent learns for itself is in the units of its data either way."""
    explained_power: float = field(
        default=0.0,
        metadata=_constant(
            "exponent of the weight (explained share)^ψ of an agent's gradient, with the full history",
            symbol="ψ",
            range=Range(least=0, below=math.inf, note="0: all weigh the same"),
        ),
    )
    warm_up_rounds: int = field(
        default=0,
        metadata=_constant(
            "rounds of the spectral warm start, which gives the first basis",
            symbol="W",
            range=Range(least=2, most=2**32 - 1, or_zero=True),
        ),
    )
    """The basis then moves once, at their end, from two estimates of every agent
    (`cospan.core.aggregation.warm_start`); agents keep d × d numbers meanwhile."""
    aggregation: Aggregation = field(
        default=Aggregation.MEAN,
        metadata=_constant("how gradients are aggregated; all but mean limit faulty or malicious agents"),
    )
    trimmed_share: float = field(
        default=0.25,
        metadata=_constant(
            "share of the agents left out on each side by trimmed aggregation",
            symbol="ξ",
            range=Range(above=0, below=0.5),
        ),
    )
    clip_norm: float = field(
        default=0.0,
        metadata=_constant(
            "Frobenius norm at which clipped aggregation cuts a gradient",
            symbol="τ",
            unit="σ²",
            range=Range(least=0, below=math.inf, note="0: the round's median norm"),
        ),
    )
    largest_turn: float = field(
        default=NO_BOUND_DEGREES,
        metadata=_constant(
            "largest angle, in degrees, by which the step of one round turns the basis",
            unit="degrees",
            range=Range(least=0.01, most=NO_BOUND_DEGREES, note="90: no bound"),
            metavar="DEG",
        ),
    )
    """In the first rounds it is larger: see `largest_turn_between`."""
    first_turn: float = field(
        default=0.0,
        metadata=_constant(
            "largest angle, in degrees, by which the first round turns the basis; never less than largest_turn",
            unit="degrees",
            range=Range(least=0.01, most=NO_BOUND_DEGREES, or_zero=True, note="0: 80"),
            metavar="DEG",
        ),
    )
    """0 stands for the value that fits sound fleets, and is what a peer sends that does not know the field."""
    refresh_growth: float = field(
        default=0.0,
        metadata=_constant(
            "growth of the number of rounds from one refresh of the posteriors to the next",
            range=Range(least=1, most=16, or_zero=True, note="0: 1.15"),
            unset=f"{GROWTH_OF_MANY:g} for more than {MANY_AGENTS:,} agents, else 1.15",
        ),
    )
    """Between refreshes agents send gradients at the new basis, of the moments that they had (docs/adr/0037)."""
    refresh_sample: int = field(
        default=0,
        metadata=_constant(
            "least number of agents in groups whose posteriors are refreshed in every round of refresh_growth",
            range=Range(least=1, most=2**32 - 1, or_zero=True, note="0: all"),
            unset=f"{SAMPLE_OF_MANY:,} for more than {MANY_AGENTS:,} agents, else all",
        ),
    )
    """The others are at least 16 rounds apart, and all are refreshed in the last round (docs/adr/0041)."""

    @property
    def sends_pooled(self) -> bool:
        """Whether agents send numbers that are pooled, in some of the rounds: row sums of |A|, or curvatures."""
        return self.pooled_is_nonnegative or self.has_head_covariance

    @property
    def pooled_is_nonnegative(self) -> bool:
        """Whether pooled numbers are row sums of |A|, none of which is negative."""
        return self.row_scaled and self.head_update is HeadUpdate.FULL_HISTORY

    def pooled_length(self, feature_dim: int) -> int:
        """How many numbers an agent sends to be pooled, with features of length d; 0 where it sends none."""
        if self.has_head_covariance:
            return feature_dim * (feature_dim + 1) // 2 + 1
        return feature_dim if self.sends_pooled else 0

    def sends_pooled_in(self, round_number: int) -> bool:
        """Whether uploads of round t carry pooled numbers; in the other rounds the last ones are used."""
        since = round_number - self.warm_up_rounds
        return self.sends_pooled and since >= 0 and takes_pooled(since, self.pooled_growth)

    @property
    def pooled_growth(self) -> float:
        """The factor between the rounds in which pooled numbers are sent, and posteriors refreshed."""
        return (self.refresh_growth or _REFRESH_GROWTH) if self.has_head_covariance else _POOLED_GROWTH

    def sampled_every(self, agents: int) -> int:
        """Of how many agents of a group one belongs to the sample that is refreshed in all of these rounds."""
        return max(1, agents // self.refresh_sample) if self.refresh_sample and self.has_head_covariance else 1

    @property
    def has_head_covariance(self) -> bool:
        """Whether the coordinator announces W with each basis."""
        return self.head_update is HeadUpdate.POSTERIOR

    @property
    def basis_step_decays(self) -> bool:
        """Whether ζ decays with the other steps; the noise of gradients of the full history fades by itself."""
        return self.head_update not in (HeadUpdate.FULL_HISTORY, HeadUpdate.POSTERIOR)

    @property
    def keeps_history(self) -> bool:
        """Whether an agent keeps the d × d system of all its transitions."""
        return self.head_update in (HeadUpdate.FULL_HISTORY, HeadUpdate.POSTERIOR)

    @property
    def averaging_power(self) -> float:
        """Exponent of the averages: solutions over the full history wander little, and a long average lags."""
        if self.head_update is HeadUpdate.POSTERIOR:
            return math.inf  # it is of all transitions: the newest one counts alone
        return 15.0 if self.head_update is HeadUpdate.FULL_HISTORY else 3.0

    def warms_up_in(self, round_number: int) -> bool:
        """Whether round t belongs to the warm-up, so that the basis does not move by gradients."""
        return round_number < self.warm_up_rounds

    def brings_estimates_in(self, round_number: int) -> bool:
        """Whether round t is the warm-up's last: its uploads carry [a b], d × 2, in place of a gradient."""
        return round_number == self.warm_up_rounds - 1

    def largest_turn_between(self, first: int, last: int) -> float:
        """The largest angle, in degrees, from the basis of one round to that of a later one; 90 for no bound.

        In round t the step turns it by at most a + (b − a)·(10 / (10 + t − W))², where a is `largest_turn`, b is
        `first_turn` (80° if that is 0; a if it is less than a), and W is the number of warm-up rounds; angles add
        up. A warm-up leaves the basis as it is, and its end may turn it anywhere.
        """
        begin = max(first, self.warm_up_rounds)
        jumps = first < self.warm_up_rounds <= last
        if self.largest_turn >= NO_BOUND_DEGREES or jumps or self.largest_turn * (last - begin) >= NO_BOUND_DEGREES:
            return NO_BOUND_DEGREES
        excess = max(0.0, (self.first_turn or _FIRST_TURN_DEGREES) - self.largest_turn)
        total = 0.0
        for number in range(begin - self.warm_up_rounds, last - self.warm_up_rounds):
            total += self.largest_turn + excess * (_TURN_ROUNDS / (_TURN_ROUNDS + number)) ** 2
        return min(total, NO_BOUND_DEGREES)

    def problems(self) -> list[str]:
        """Every constant that is out of its range, one sentence each; empty when all is well."""
        return [*range_problems(self), *self._posterior_problems()]

    def _posterior_problems(self) -> list[str]:
        """What a posterior would ignore, and what its moments, those of TD(0), cannot be combined with."""
        if self.head_update is not HeadUpdate.POSTERIOR:
            return []
        needed: dict[str, bool | float] = {
            "head_radius": math.inf,
            "preconditioned": False,
            "trace_decay": 0,
            "forgetting": 0,
            "row_scaled": False,
            "explained_power": 0,
            "warm_up_rounds": 0,
        }
        problems = [
            f"{name} is {getattr(self, name)}; with posterior head updates it must be {value}, "
            "or choose another head update"
            for name, value in needed.items()
            if getattr(self, name) != value
        ]
        if not self.reward_scaled:
            problems.append("reward_scaled is false; posterior head updates are in each agent's own units")
        return [problem.replace("True", "true").replace("False", "false") for problem in problems]


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
    """The posterior of all moment equations, with one set of constants for every workload (docs/adr/0023).

    For d up to some hundreds: an agent keeps some 5 d² numbers and a history of 20 d transitions. The steps and
    their decay are those of TD alone, the baseline.
    """
    return replace(
        compact(steps_per_round),
        head_update=HeadUpdate.POSTERIOR,
        basis_step=0.5,
        trace_decay=0.0,
        forgetting=0.0,
        preconditioned=False,
        row_scaled=False,
        largest_turn=5.0,
    )


def full_history(steps_per_round: int) -> Method:
    """Least squares over the full history (docs/adr/0006): what the posterior is compared with.

    Also for d up to some hundreds.
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
    """Least squares in r × r numbers an agent, for features whose d² numbers are too many (docs/adr/0004)."""
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


PRESETS = {"paper": paper, "practical": practical, "compact": compact, "full-history": full_history}


@lru_cache(maxsize=256)
def takes_pooled(number: int, growth: float = _POOLED_GROWTH) -> bool:
    """Whether pooled numbers are sent in a round, counted from the first after the warm-up.

    With growth 1.25 they are in rounds 0 to 5, 7, 9, 12, 15, 19, …: each the first that is at least a quarter later
    than the last.
    """
    due = 0
    while due < number:
        due = max(due + 1, math.ceil(growth * due))
    return due == number
