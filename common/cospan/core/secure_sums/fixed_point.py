"""A contribution as a vector of words, sums of such vectors modulo 2^64, and a contribution out of the sum."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt64

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, to_dense
from cospan.core.secure_sums.layout import Layout

Words = UInt64[np.ndarray, " words"]


@dataclass(frozen=True, eq=False, slots=True)
class Encoded:
    """A contribution in fixed point.

    Attributes:
        words: the vector, uint64.
        share: what all its numbers were multiplied by, above 0 and at most 1; below 1 where one of them was out of
            range.
    """

    words: Words
    share: float = 1.0


def encode(contribution: Contribution, layout: Layout) -> Encoded:
    """The vector of one contribution, of one agent or summed over a group.

    If a number exceeds its range (2^b for each agent of the contribution), all numbers of the contribution but the
    count of its agents are multiplied by the largest factor below 1 with which none does: these agents then weigh
    less in the round. Nothing wraps, and no entry is cut by itself.

    Raises:
        ValueError: a number is not finite; the contribution does not have the layout's fields and shapes; or it is
            of no whole number of agents from 1 to the layout's capacity.
    """
    agents = _agents_of(contribution, layout)
    words = np.empty(layout.words, dtype=np.int64)
    counted = layout.gradient_words + layout.moment_words
    words[counted] = agents
    fields = _fields(contribution, layout, words)
    excess = max(_largest(field.values) / (agents * 2.0**field.bits) for field in fields)
    share = 1.0 if excess <= 1.0 else 1.0 / excess
    most = agents << (62 - layout.capacity_bits)
    for field in fields:
        values = field.values * share if share < 1.0 else field.values
        # Clipped, for the product may round to the number above the range.
        field.words[:] = np.clip(np.rint(values * layout.scale_of(field.bits)), -most, most)
    return Encoded(words.view(np.uint64), share)


class _Field(NamedTuple):
    values: Float[np.ndarray, " m"]
    bits: int
    words: Int[np.ndarray, " m"]


def _fields(contribution: Contribution, layout: Layout, words: Int[np.ndarray, " words"]) -> list[_Field]:
    """Each field's numbers, range, and place in the vector."""
    end, counted = layout.gradient_words, layout.gradient_words + layout.moment_words
    fields = [_Field(to_dense(contribution.gradient).ravel(), layout.gradient_bits, words[:end])]
    if layout.has_moment:
        moment = contribution.head_second_moment
        if moment is None or moment.shape != (layout.rank, layout.rank):
            raise ValueError("the contribution lacks the second moment of the heads")
        triangle = np.asarray(moment[np.triu_indices(layout.rank)], dtype=np.float64)
        fields.append(_Field(triangle, layout.moment_bits, words[end:counted]))
    if layout.pooled_length:
        pooled = contribution.pooled
        if pooled is None or pooled.shape != (layout.pooled_length,):
            raise ValueError(f"the contribution lacks the {layout.pooled_length} pooled numbers of this round")
        fields.append(_Field(np.asarray(pooled, dtype=np.float64), layout.pooled_bits, words[counted + 1 :]))
    return fields


def _largest(values: Float[np.ndarray, " m"]) -> float:
    largest = float(np.max(np.abs(values)))
    if not math.isfinite(largest):  # a NaN is the largest of all
        raise ValueError("the contribution has a number that is not finite")
    return largest


def _agents_of(contribution: Contribution, layout: Layout) -> int:
    agents = contribution.weight
    if contribution.gradient.shape != (layout.feature_dim, layout.rank):
        raise ValueError(f"the gradient has the shape {contribution.gradient.shape}")
    if not (1 <= agents <= layout.capacity and float(agents).is_integer()):
        raise ValueError(
            f"the contribution is of {agents:g} agents; it must be a whole number from 1 to {layout.capacity}"
        )
    return int(agents)


def added(vectors: Iterable[Words]) -> Words:
    """Σ of the vectors modulo 2^64, in a new array; order and grouping do not matter.

    Raises:
        ValueError: there is none, or their lengths differ.
    """
    every = list(vectors)
    if not every or any(vector.shape != every[0].shape for vector in every):
        raise ValueError("a sum needs one or more vectors of one length")
    total = every[0].copy()
    for vector in every[1:]:
        np.add(total, vector, out=total)  # of unsigned integers: wraps
    return total


def sum_problem(total: Words, layout: Layout, agents: int) -> str:
    """Why a sum over a round's members is none of `agents` agents; empty where it is.

    If masks do not cancel (a member is missing, or two were told different things), every word of the sum is
    uniform, and the check word is right with probability 2^−64.
    """
    if total.shape != (layout.words,):
        return f"the sum has {len(total)} words; this round's has {layout.words}"
    counted = int(total[layout.gradient_words + layout.moment_words])
    if counted != agents:
        return f"the masks do not cancel: the check word of the sum is {counted}, and {agents} agents sent"
    return ""


def decode(total: Words, layout: Layout) -> Contribution:
    """The sum over all members of a round as one contribution, float64.

    Args:
        total: a sum for which `sum_problem` finds none.
        layout: of the round.
    """
    numbers = total.view(np.int64)
    gradient_end = layout.gradient_words
    moment_end = gradient_end + layout.moment_words
    gradient = numbers[:gradient_end].astype(np.float64) / layout.gradient_scale
    return Contribution(
        gradient=DenseMatrix(gradient.reshape(layout.feature_dim, layout.rank)),
        weight=float(numbers[moment_end]),
        head_second_moment=_moment(numbers[gradient_end:moment_end], layout) if layout.has_moment else None,
        pooled=numbers[moment_end + 1 :] / layout.pooled_scale if layout.pooled_length else None,
    )


def _moment(numbers: Int[np.ndarray, " m"], layout: Layout) -> Float[np.ndarray, "r r"]:
    moment = np.empty((layout.rank, layout.rank))
    rows, columns = np.triu_indices(layout.rank)
    moment[rows, columns] = moment[columns, rows] = numbers / layout.moment_scale
    return moment
