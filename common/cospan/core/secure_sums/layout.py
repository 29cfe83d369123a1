"""Which word of a round's vector holds what, and in which fixed point.

A vector is

    G | Σ w wᵀ, if the run preconditions | agents | pooled, if round t pools

G by its d · r entries in C order, Σ w wᵀ by the r(r + 1)/2 of its upper triangle, row by row. So the first part has
the same length in every round. Every number is a word of 64 bits: a two's complement integer, little-endian where
it is sent. "Agents" is how many agents the vector is a sum of, an integer. It is also the check word: see
`fixed_point.sum_problem`.

**No sum overflows.** A real number x of one agent is the integer round(x · 2^f), |x| ≤ 2^b, with f = 62 − c − b
for a run of at most 2^c agents. So an agent's integer is at most 2^(62 − c) in size, which is an integer itself:
rounding does not exceed it. A sum over at most 2^c agents is at most 2^62 in size, below 2^63, and is read without
ambiguity from its residue modulo 2^64, in whatever order or grouping it was added. Rounding changes the number of
an agent, or the sum of a group that is rounded once, by at most 2^−(f + 1).
"""

from dataclasses import dataclass

from cospan.core.method import HeadUpdate, Method
from cospan.core.specification import RunSpecification

_SUM_BITS = 62
_LEAST_CAPACITY_BITS = 6
"""A run has room for 64 agents or more, so that some that join late do not exceed it."""
_MOMENT_BITS, _ROW_SUM_BITS = 16, 6
_UNSCALED_BITS = 8
"""More for each of them where agents do not learn in their own units, so that rewards of 1 are as good as any."""
_CURVATURE_BITS, _MOST_CURVATURE_BITS = 5, 24
"""For one round, to which the binary logarithm of the rounds is added; and for a run without an end."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Lengths and fixed point of the vector of one round.

    Attributes:
        feature_dim: d.
        rank: r.
        has_moment: whether the second moment of the heads is in it.
        pooled_length: how many pooled numbers are in it; 0 in a round that pools none.
        capacity_bits: c; a sum is of at most 2^c agents.
        gradient_bits: b of the entries of G.
        moment_bits: b of the entries of Σ w wᵀ.
        pooled_bits: b of the pooled numbers.
    """

    feature_dim: int
    rank: int
    has_moment: bool
    pooled_length: int
    capacity_bits: int
    gradient_bits: int
    moment_bits: int
    pooled_bits: int

    @property
    def gradient_words(self) -> int:
        """d · r."""
        return self.feature_dim * self.rank

    @property
    def moment_words(self) -> int:
        """r(r + 1)/2, or 0."""
        return self.rank * (self.rank + 1) // 2 if self.has_moment else 0

    @property
    def words(self) -> int:
        """Length of the vector."""
        return self.gradient_words + self.moment_words + 1 + self.pooled_length

    @property
    def capacity(self) -> int:
        """2^c: the largest number of agents in one sum."""
        return 1 << self.capacity_bits

    @property
    def gradient_scale(self) -> float:
        """2^f of the entries of G."""
        return self.scale_of(self.gradient_bits)

    @property
    def moment_scale(self) -> float:
        """2^f of the entries of Σ w wᵀ."""
        return self.scale_of(self.moment_bits)

    @property
    def pooled_scale(self) -> float:
        """2^f of the pooled numbers."""
        return self.scale_of(self.pooled_bits)

    def scale_of(self, range_bits: int) -> float:
        """2^f of a field with the range 2^b."""
        return float(2 ** (_SUM_BITS - self.capacity_bits - range_bits))


def capacity_bits_of(agents: int) -> int:
    """c of a run that begins with `agents` agents: room for as many, rounded up to a power of two, at least 64."""
    return max(_LEAST_CAPACITY_BITS, (agents - 1).bit_length())


def layout_of(specification: RunSpecification, round_number: int) -> Layout:
    """The layout of round t, which follows from the run's specification alone."""
    method = specification.method
    more = 0 if method.reward_scaled else _UNSCALED_BITS
    pools = specification.sends_pooled_in(round_number)
    return Layout(
        feature_dim=specification.feature_dim,
        rank=specification.rank,
        has_moment=method.preconditioned,
        pooled_length=specification.pooled_length if pools else 0,
        capacity_bits=capacity_bits_of(specification.agents),
        gradient_bits=_gradient_bits(method) + more,
        moment_bits=_MOMENT_BITS + more,
        pooled_bits=_curvature_bits(specification.rounds) if method.has_head_covariance else _ROW_SUM_BITS + more,
    )


def _gradient_bits(method: Method) -> int:
    """b of G: measured on the built-in workloads, and about 2^4 times as much (docs/security/secure-sums.md)."""
    match method.head_update:
        case HeadUpdate.POSTERIOR:
            return 12
        case HeadUpdate.FULL_HISTORY | HeadUpdate.END_OF_ROUND:
            return 8  # a mean over transitions
        case _:
            return 12 + method.steps_per_round.bit_length()  # a sum over the steps of a round


def _curvature_bits(rounds: int) -> int:
    """b of curvatures, which grow with the data."""
    return min(_CURVATURE_BITS + rounds.bit_length(), _MOST_CURVATURE_BITS) if rounds else _MOST_CURVATURE_BITS
