"""What one agent sends of a round: its clipped vector in fixed point, and its share of the fleet's noise.

**Unit of privacy: one agent, with all that it sends in all rounds.** Two fleets are neighbours if in one of them
one agent sends zeros (and its count, 1) in every round, whatever its data are. Who takes part is no secret.

**Sensitivity.** Let z be the noise multiplier and h the number of agents whose shares have to be in the sum. A
word of field j has the fixed point 2^f and the bound c_j (`clipping`). It is rounded to whole units of 2^k, and to
these is added a discrete Gaussian of scale

    s_j = ⌈2^(f − k) c_j z / √h⌉,

with the largest k that leaves s_j at least 2^19. Rounding adds at most one unit to a word, so with the limit

    ‖x‖_c ≤ 1 − z (Σ_words s_j⁻² / h)^(1/2)

the vector y of whole units has ‖y / s‖ ≤ √h / z. The sum of h shares is, in units of √h s_j, noise of variance 1 on
a vector of norm 1/z at most: the Gaussian mechanism of multiplier z. That the sum of h discrete Gaussians is one,
but for a divergence of at most 10 h exp(−π² s²), s ≥ 2^10, is theorem 1 of Kairouz, Liu and Steinke 2021, "The
distributed discrete Gaussian mechanism" (arXiv:2102.06387).
Their guarantee is in terms of Rényi divergences, and these are what `cospan.wire.privacy_budget` composes.

**Who has to be honest.** The noise of an agent protects it from others only as far as they do not know it. With
n agents in the sum, up to n − h may be missing, collude with the coordinator, or add no noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int64

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.method import Method
from cospan.core.privacy.clipping import Bounds, clipped
from cospan.core.privacy.discrete_gaussian import MAX_SCALE, discrete_gaussian
from cospan.core.privacy.word_source import WordSource
from cospan.core.secure_sums.fixed_point import Words, added, encode
from cospan.core.secure_sums.layout import Layout

LEAST_SCALE = 2**10
"""The least s of a share: below, a sum of shares is no longer a discrete Gaussian to every digit."""
_TAIL = 20.0
"""In standard deviations of a sum of noise: beyond, P < 2^−280."""
_SUM_LIMIT = 2.0**63
_SAMPLES_AT_ONCE = 2**16
"""Of the noise of a group: many small calls take longer, and one large one takes much memory."""
_ROUNDING = 1e-12
"""What the float64 arithmetic of the norm may be wrong by, and more."""


@dataclass(frozen=True)
class Mechanism:
    """The clip and the noise of one round.

    Attributes:
        layout: of the round's vector.
        method: the constants.
        bounds: of the clip.
        multiplier: z, the standard deviation of the noise in the sum over the clip's bound; above 0.
        sharers: h, in how many agents' shares the noise is split, 1 or more.
    """

    layout: Layout
    method: Method
    bounds: Bounds
    multiplier: float
    sharers: int

    def problem(self) -> str:
        """Why an agent cannot send with these numbers; empty where it can."""
        if not (0.0 < self.multiplier < math.inf and self.sharers >= 1):
            return f"the noise multiplier is {self.multiplier:g} and {self.sharers} agents share the noise"
        if self.sharers > self.layout.capacity:
            return f"{self.sharers} agents share the noise; a sum is of at most {self.layout.capacity}"
        noisy = self._bounds > 0.0
        agents = self.layout.capacity
        largest = agents * self._bounds + _TAIL * math.sqrt(agents) * self._deviations
        if float(np.max((largest * self._fixed_point)[noisy])) >= _SUM_LIMIT:
            return (
                f"with its noise a sum over {agents} agents exceeds the range of the fixed point; "
                "lower the bounds of the clip, or take more agents or fewer rounds"
            )
        if int(self._scales[noisy].min()) < LEAST_SCALE or self.limit < 0.5:
            return "the fixed point is too coarse for this noise: raise the bounds of the clip, or use fewer agents"
        return ""

    def sent(self, agents: Sequence[Contribution], source: WordSource) -> Words:
        """The words of a process: the sum of its agents' clipped vectors, and a share of noise of each of them.

        Args:
            agents: what each of its agents learnt, one or more.
            source: of the noise. Draw once a round: two vectors of one round tell more than the accountant knows.

        Raises:
            ValueError: a number is not finite, a contribution is of several agents, or there is a `problem`.
        """
        if problem := self.problem():
            raise ValueError(problem)
        return added([*(self.clipped_words(agent) for agent in agents), self.noise(len(agents), source)])

    def clipped_words(self, agent: Contribution) -> Words:
        """One agent's vector without noise, in whole units of 2^k; not to be sent."""
        words = encode(clipped(agent, self.bounds, self.method, self.limit), self.layout).words.view(np.int64)
        shifts = self._shifts
        half = np.where(shifts > 0, 1 << np.maximum(shifts - 1, 0), 0)
        rounded = ((words + half) >> shifts) << shifts
        return np.asarray(np.where(self._bounds > 0.0, rounded, words)).view(np.uint64)

    def noise(self, shares: int, source: WordSource) -> Words:
        """The sum of that many shares of noise, as words; 0 at the check word."""
        noisy = np.flatnonzero(self._bounds > 0.0)
        total = np.zeros(self.layout.words, dtype=np.int64)
        at_once = max(1, _SAMPLES_AT_ONCE // len(noisy))
        for first in range(0, shares, at_once):
            count = min(at_once, shares - first)
            samples = discrete_gaussian(np.tile(self._scales[noisy], count), source)
            total[noisy] += samples.reshape(count, -1).sum(axis=0)
        return np.asarray(total << self._shifts).view(np.uint64)

    @cached_property
    def limit(self) -> float:
        """The largest ‖x‖_c that an agent sends, a little below 1."""
        scales = self._scales[self._bounds > 0.0].astype(np.float64)
        return 1.0 - self.multiplier * math.sqrt(float(np.sum(scales**-2.0)) / self.sharers) - _ROUNDING

    def deviations_of_sum(self, agents: int) -> Bounds:
        """σ of the noise in each field of a sum over n agents, z c_j √(n / h), in the units of what is sent."""
        size, bounds = self.multiplier * math.sqrt(agents / self.sharers), self.bounds
        return Bounds(
            *(size * bound for bound in (bounds.gradient, bounds.moment, bounds.pooled, bounds.influence))
        )

    @cached_property
    def _bounds(self) -> Float[np.ndarray, " words"]:
        return self.bounds.of_words(self.layout, self.method)

    @cached_property
    def _fixed_point(self) -> Float[np.ndarray, " words"]:
        """2^f of every word; 1 of the check word."""
        layout = self.layout
        counted = layout.gradient_words + layout.moment_words
        scales = np.full(layout.words, layout.gradient_scale)
        scales[layout.gradient_words : counted] = layout.moment_scale
        scales[counted] = 1.0
        scales[counted + 1 :] = layout.pooled_scale
        return scales

    @cached_property
    def _deviations(self) -> Float[np.ndarray, " words"]:
        """Of one share, in units of what is sent."""
        return self._bounds * (self.multiplier / math.sqrt(self.sharers))

    @cached_property
    def _shifts(self) -> Int64[np.ndarray, " words"]:
        """k of every word, 0 of the check word."""
        words = np.maximum(self._deviations * self._fixed_point, 1.0)
        return np.asarray(np.maximum(np.floor(np.log2(words / (MAX_SCALE // 2))), 0.0).astype(np.int64))

    @cached_property
    def _scales(self) -> Int64[np.ndarray, " words"]:
        """s of every word."""
        units = self._deviations * self._fixed_point / 2.0 ** self._shifts.astype(np.float64)
        return np.asarray(np.minimum(np.ceil(units), MAX_SCALE).astype(np.int64))
