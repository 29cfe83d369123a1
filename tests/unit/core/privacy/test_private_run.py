"""The vector of a process in a private run, the sum that the coordinator reads, and what is spent."""

from dataclasses import replace

import numpy as np
import pytest
from private_runs import private, seeded
from runs import D, R

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, to_dense
from cospan.core.privacy.private_run import (
    mechanism_of,
    mechanism_problem,
    most_sent,
    read_sum,
    sharers_of,
    spent_after,
    vector_of,
)
from cospan.core.privacy.word_source import SystemWords
from cospan.core.secure_sums.fixed_point import added, decode, encode
from cospan.core.secure_sums.layout import layout_of

CURVATURE = D * (D + 1) // 2


def contribution(value: float = 0.0) -> Contribution:
    return Contribution(DenseMatrix(np.full((D, R), value)), pooled=np.full(CURVATURE + 1, value))


def test_three_quarters_of_the_agents_have_to_be_honest() -> None:
    assert [sharers_of(agents) for agents in (3, 4, 5, 8, 100, 1001)] == [3, 3, 4, 6, 75, 751]


def test_without_differential_privacy_a_vector_is_the_encoded_contribution() -> None:
    plain = replace(private(), **dict.fromkeys(private().as_dict().keys() & {"dp_epsilon"}, 0.0))
    found = vector_of(contribution(0.5), plain, 0, 5, SystemWords())
    np.testing.assert_array_equal(found.words, encode(contribution(0.5), layout_of(plain, 0)).words)


def test_two_vectors_of_one_contribution_differ_and_one_source_gives_the_same() -> None:
    spec = private()
    one, other, again = (vector_of(contribution(), spec, 0, 5, seeded("a", n)).words for n in (1, 2, 1))
    assert np.all((one != other)[np.arange(len(one)) != D * R]), "only the check word is the same"
    np.testing.assert_array_equal(one, again)


@pytest.mark.parametrize("agents", [5, 8])
def test_the_sum_that_the_coordinator_reads_has_the_promised_deviation(agents: int) -> None:
    """z c_j √(n/h) of every number, over 150 sums of agents that send zeros; the seed is fixed."""
    spec, sums = private(agents=agents), []
    for number in range(150):
        words = [vector_of(contribution(), spec, 0, agents, seeded(str(k), number)).words for k in range(agents)]
        sums.append(decode(added(words), layout_of(spec, 0)))
    size = spec.dp_noise_multiplier * np.sqrt(agents / sharers_of(agents))
    gradients = np.array([to_dense(each.gradient).ravel() for each in sums])
    pooled = np.array([each.pooled for each in sums])
    assert np.std(gradients) == pytest.approx(size * spec.dp_gradient_bound, rel=0.04)
    assert np.std(pooled[:, :-1]) == pytest.approx(size * spec.dp_curvature_bound, rel=0.04)
    assert np.std(pooled[:, -1]) == pytest.approx(size * spec.dp_influence_bound, rel=0.1)
    assert abs(np.mean(gradients)) < 4.0 * size * spec.dp_gradient_bound / np.sqrt(gradients.size)
    assert all(each.weight == agents for each in sums)


def test_a_large_contribution_is_clipped() -> None:
    """Its norm in the bounds is 1, whatever it was; what is left in the difference to zeros is rounding."""
    spec = private()
    large, zeros = (vector_of(contribution(value), spec, 0, 5, seeded("a", 0)).words for value in (1e3, 0.0))
    found = decode(large - zeros, layout_of(spec, 0))
    assert found.pooled is not None
    squares = (
        np.sum(to_dense(found.gradient) ** 2) / spec.dp_gradient_bound**2
        + np.sum(found.pooled[:-1] ** 2) / spec.dp_curvature_bound**2
        + found.pooled[-1] ** 2 / spec.dp_influence_bound**2
    )
    assert np.sqrt(squares) == pytest.approx(1.0, abs=1e-3)
    assert np.sqrt(squares) <= 1.0


def test_a_sum_is_repaired_and_one_without_noise_is_not() -> None:
    spec = private()
    summed = replace(contribution(-1.0), weight=5.0)
    found = read_sum(summed, spec, 0)
    assert found.pooled is not None
    assert found.pooled[-1] == mechanism_of(spec, 0, 5).deviations_of_sum(5).influence
    above = read_sum(replace(contribution(9.0), weight=5.0), spec, 0)
    assert above.pooled is not None
    assert above.pooled[-1] == 5.0, "no more than its agents"
    assert read_sum(summed, replace(spec, dp_epsilon=0.0), 0) is summed


def test_noise_that_does_not_fit_the_fixed_point_is_a_problem() -> None:
    assert mechanism_problem(private()) == ""
    assert "exceeds the range of the fixed point" in mechanism_problem(private(dp_curvature_bound=1e9))
    assert "too coarse for this noise" in mechanism_problem(private(dp_gradient_bound=1e-12))
    assert mechanism_problem(private(dp_epsilon=0.0, dp_gradient_bound=1e-12)) == ""


def test_what_is_spent() -> None:
    spent = spent_after(private(), 5)
    assert spent is not None
    assert str(spent).startswith("ε spent 5.2")
    assert str(spent).endswith(" of 8 (δ 1e-5), 5 of 10 vectors")
    assert spent.as_dict()["vectors_sent"] == 5
    whole = spent_after(private(), 99)
    assert whole is not None
    assert whole.vectors == 10
    assert 7.5 < whole.epsilon <= 8.0
    assert spent_after(private(dp_epsilon=0.0), 5) is None


def test_most_vectors_that_can_have_been_sent() -> None:
    assert most_sent(0, 1, is_open=False) == 0
    assert most_sent(4, 1, is_open=True) == 5
    assert most_sent(4, 3, is_open=True) == 7
