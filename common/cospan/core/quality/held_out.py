"""Errors of value functions on data that they were not learnt from, where nothing is known to be true.

Answers are kept as they are in some rounds, and the transitions after that are held out from them. The moments of
these transitions, r = Σ (φ − φ̄) δ with the TD errors δ of an answer ẑ, have the expectation A (z − ẑ), where z are
the true weights. So u = A⁻¹ r estimates z − ẑ, and the error of the values is (z − ẑ)ᵀ C (z − ẑ). Its plain
estimate uᵀ C u holds the noise of r, which is larger than the error itself. The mean of u_iᵀ C u_j over pairs of
different blocks of rounds has no such part: their noise is independent (a U-statistic; Hoeffding 1948, "A class of
statistics with asymptotically normal distribution"). What two answers differ by is linear in u and has less noise:

    ‖ẑ₂ − z‖² − ‖ẑ₁ − z‖² = ‖ẑ₂ − ẑ₁‖² − 2 (ẑ₂ − ẑ₁)ᵀ C u.

Norms of raw moments, rᵀ r or rᵀ C⁻¹ r, weigh directions by how fast the chain mixes, and do not rank answers by the
errors of their values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from cospan.core.learning.least_squares import TransitionSums
from cospan.core.linalg.leading_axes import PerAgent, applied, column, dot, numbers_of

MOST_BLOCKS = 16
"""Blocks of held-out rounds that are complete before two become one."""
FEWEST_BLOCKS = 6
"""Fewest blocks from which an error is estimated."""
FIRST_ROUNDS = 4
"""Fewest rounds of which an answer is kept."""
LEAST_SHARE = 0.5
"""Fewest held-out steps, as a share of those learnt from, with which the newest answers are judged rather than
those kept before."""
_RIDGE_STEPS = 3.0
"""Of A where it is inverted, in environment steps, as in the ridge of LSTD."""


@dataclass(frozen=True, eq=False, slots=True)
class Answers:
    """What was learnt by some round, of one agent or of n.

    Attributes:
        joint: value weights of the joint method, shape (*n, d).
        lstd_alone: those of LSTD alone.
        td_alone: those of TD alone, for each of its m step sizes, shape (*n, m, d); m may be 0.
        gain: mean reward, less the reference that rewards are counted from.
        steps: environment steps learnt from, the same for all.
        rounds: the same in rounds.
    """

    joint: Float[np.ndarray, "*n d"]
    lstd_alone: Float[np.ndarray, "*n d"]
    td_alone: Float[np.ndarray, "*n m d"]
    gain: PerAgent
    steps: int
    rounds: int

    def of_agents(self, places: int | Sequence[int] | slice) -> "Answers":
        """Those of one of n agents, or of some of them, by their places."""
        return replace(
            self,
            joint=self.joint[places],
            lstd_alone=self.lstd_alone[places],
            td_alone=self.td_alone[places],
            gain=numbers_of(self.gain, places),
        )


@dataclass(frozen=True, eq=False, slots=True)
class HeldOut:
    """Answers, and the moments of the transitions that came after them, in blocks of consecutive rounds.

    Attributes:
        answers: see `Answers`.
        moments: Σ φ δ of each complete block and, last, of the open one, shape (*n, k + 1, d); δ is that of the
            joint answer.
        errors: Σ δ of the same, shape (*n, k + 1).
        rounds: of each complete block.
        open_rounds: of the open one.
        steps: of all blocks.
    """

    answers: Answers
    moments: Float[np.ndarray, "*n k1 d"]
    errors: Float[np.ndarray, "*n k1"]
    rounds: int = 1
    open_rounds: int = 0
    steps: int = 0

    @classmethod
    def begun_with(cls, answers: Answers) -> "HeldOut":
        """Of no transitions yet."""
        agents, dim = answers.joint.shape[:-1], answers.joint.shape[-1]
        return cls(answers, np.zeros((*agents, 1, dim)), np.zeros((*agents, 1)))

    def of_agents(self, places: int | Sequence[int] | slice) -> "HeldOut":
        """That of one of n agents, or of some of them, by their places."""
        return replace(
            self,
            answers=self.answers.of_agents(places),
            moments=self.moments[places],
            errors=self.errors[places],
        )

    def updated(
        self,
        features: Float[np.ndarray, "*n L1 d"],
        rewards: Float[np.ndarray, "*n L"],
        is_transition: Bool[np.ndarray, " L"] | None = None,
        *,
        changes: Float[np.ndarray, "*n L d"] | None = None,
    ) -> "HeldOut":
        """With one more round of L transitions, less its cuts; rewards are less the agent's reference.

        A round of cuts alone changes nothing. `changes` are those of the features, where they are at hand.
        """
        visited, taken = features[..., :-1, :], rewards.shape[-1]
        changes = features[..., 1:, :] - visited if changes is None else changes
        deltas = rewards - column(self.answers.gain) + applied(changes, self.answers.joint)
        if is_transition is not None:
            deltas, taken = np.where(is_transition, deltas, 0.0), int(is_transition.sum())
            if not taken:
                return self
        moments, errors = self.moments.copy(), self.errors.copy()
        moments[..., -1, :] += applied(visited.swapaxes(-1, -2), deltas)
        errors[..., -1] += deltas.sum(axis=-1)
        steps, opened, length = self.steps + taken, self.open_rounds + 1, self.rounds
        if opened == length:
            opened = 0
            moments = np.concatenate([moments, np.zeros_like(moments[..., :1, :])], axis=-2)
            errors = np.concatenate([errors, np.zeros_like(errors[..., :1])], axis=-1)
            if errors.shape[-1] > MOST_BLOCKS:
                moments = np.concatenate(
                    [moments[..., :-1:2, :] + moments[..., 1::2, :], moments[..., -1:, :]], axis=-2
                )
                errors = np.concatenate([errors[..., :-1:2] + errors[..., 1::2], errors[..., -1:]], axis=-1)
                length = 2 * length
        return HeldOut(self.answers, moments, errors, length, opened, steps)

    @property
    def blocks(self) -> int:
        """Complete blocks."""
        return int(self.errors.shape[-1]) - 1


@dataclass(frozen=True, eq=False, slots=True)
class HeldOutErrors:
    """Mean squared errors of the values as shares of the variance of the newest values; nan where unknown.

    Attributes:
        joint: of the joint method; noise may bring it below 0, shape (*n,).
        joint_error: its standard error.
        lstd_alone: that of LSTD alone.
        td_alone: that of TD alone, with the best of its step sizes; nan without it.
        mean_only: that of V = 0, which predicts the mean reward alone; near 1.
        advantage: by how much the error of LSTD alone exceeds that of the joint method.
        advantage_error: its standard error.
        learnt_steps: environment steps that the answers were learnt from.
        held_out_steps: environment steps that they were measured with.
        blocks: of which the standard errors are; they have one degree of freedom less.
    """

    joint: Float[np.ndarray, "*n"]
    joint_error: Float[np.ndarray, "*n"]
    lstd_alone: Float[np.ndarray, "*n"]
    td_alone: Float[np.ndarray, "*n"]
    mean_only: Float[np.ndarray, "*n"]
    advantage: Float[np.ndarray, "*n"]
    advantage_error: Float[np.ndarray, "*n"]
    learnt_steps: int = 0
    held_out_steps: int = 0
    blocks: int = 0

    @classmethod
    def unknown(cls, agents: tuple[int, ...]) -> "HeldOutErrors":
        """Of nothing."""
        return cls(**{name: np.full(agents, np.nan) for name in NAMES})  # type: ignore[arg-type]

    @classmethod
    def joined(cls, parts: Sequence["HeldOutErrors"]) -> "HeldOutErrors":
        """Those of several blocks of agents as one."""
        columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in NAMES}
        return replace(parts[0], **columns)

    def of_agent(self, place: int) -> "HeldOutErrors":
        """Those of one of n agents."""
        columns: dict[str, Any] = {name: np.asarray(getattr(self, name)[place]) for name in NAMES}
        return replace(self, **columns)


NAMES = ("joint", "joint_error", "lstd_alone", "td_alone", "mean_only", "advantage", "advantage_error")
"""The attributes of `HeldOutErrors` that are one number of each agent."""


def next_rounds(rounds: int, total: int) -> int:
    """From how many rounds on the next answers are kept, after those of `rounds` rounds.

    They double: ¼, ½ of a run whose length is known, or powers of two.

    Args:
        rounds: learnt by the last answers; 0 before the first.
        total: rounds of the run; 0 for no end.
    """
    due = float(total) if total else float(2 ** math.ceil(math.log2(max(FIRST_ROUNDS, 2 * rounds + 1))))
    least = max(FIRST_ROUNDS, 1.2 * rounds)
    while due / 2.0 >= least:
        due /= 2.0
    return math.ceil(due)


@np.errstate(over="ignore", invalid="ignore")
def held_out_errors(
    kept: Sequence[HeldOut],
    sums: TransitionSums,
    metric: Float[np.ndarray, "*n d d"],
    newest: Float[np.ndarray, "*n d"],
) -> HeldOutErrors:
    """The errors of the answers that were kept last, or before those where they have too little held out.

    Args:
        kept: oldest first.
        sums: of all transitions, without a trace and with nothing forgotten: they give A.
        metric: C, of the values' mean square.
        newest: the newest weights of the joint method, whose variance is the unit.
    """
    agents = newest.shape[:-1]
    sound = [each for each in kept if each.blocks >= FEWEST_BLOCKS]
    ripe = [each for each in sound if each.steps >= LEAST_SHARE * each.answers.steps]
    if not sound:
        return HeldOutErrors.unknown(agents)
    held = (ripe or sound[:1])[-1]
    estimates = _distances(held, sums)
    joint, answers = held.answers.joint, held.answers
    unit = dot(newest, applied(metric, newest))
    unit = np.where(unit > 0.0, unit, np.nan)
    count = held.blocks
    products = estimates @ metric @ estimates.swapaxes(-1, -2)
    own = np.diagonal(products, axis1=-2, axis2=-1)
    others = (products.sum(axis=-1) - own) / (count - 1)
    error = others.mean(axis=-1)
    spread = 2.0 * others.std(axis=-1, ddof=1) / math.sqrt(count)

    def excess(weights: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n k"]:
        """Of each block, by how much the error of these weights exceeds that of the joint method."""
        away = weights - joint
        along = applied(metric, away)
        return np.asarray(dot(away, along))[..., None] - 2.0 * applied(estimates, along)

    advantage, plain = excess(answers.lstd_alone), excess(np.zeros_like(joint)).mean(axis=-1)
    tried = [excess(answers.td_alone[..., place, :]).mean(axis=-1) for place in range(answers.td_alone.shape[-2])]
    best = np.min(tried, axis=0) if tried else np.full(agents, np.nan)
    return HeldOutErrors(
        joint=np.asarray(error / unit),
        joint_error=np.asarray(spread / unit),
        lstd_alone=np.asarray((error + advantage.mean(axis=-1)) / unit),
        td_alone=np.asarray((error + best) / unit),
        mean_only=np.asarray((error + plain) / unit),
        advantage=np.asarray(advantage.mean(axis=-1) / unit),
        advantage_error=np.asarray(advantage.std(axis=-1, ddof=1) / math.sqrt(count) / unit),
        learnt_steps=answers.steps,
        held_out_steps=held.steps,
        blocks=count,
    )


def _distances(held: HeldOut, sums: TransitionSums) -> Float[np.ndarray, "*n k d"]:
    """u = A⁻¹ r of each complete block: an estimate of z − ẑ, a row each.

    A is that of all transitions. The open block counts for nothing: it is shorter than the others.
    """
    mean = sums.traces / sums.steps
    length = held.steps / (held.blocks + held.open_rounds / held.rounds)
    residuals = (held.moments[..., :-1, :] - held.errors[..., :-1, None] * mean[..., None, :]) / length
    dim = mean.shape[-1]
    ridge = _RIDGE_STEPS * np.asarray(sums.squares) / sums.steps**2 / dim
    system = sums.system / sums.steps + (ridge + (ridge == 0.0))[..., None, None] * np.eye(dim)
    try:
        return np.asarray(np.linalg.solve(system, residuals.swapaxes(-1, -2)).swapaxes(-1, -2))
    except np.linalg.LinAlgError:  # A is not symmetric: for one ridge in a continuum it may be singular
        return np.full_like(residuals, np.nan)
