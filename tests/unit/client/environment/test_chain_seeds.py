"""Seeds of many agents are those of each."""

import numpy as np
import pytest

from cospan.client.environment.chain_seeds import first_words
from cospan.client.environment.rollout import environment_seeds_of, origin_of_chain

INDICES = (0, 1, 7, 100_000, 2**32 - 1)


@pytest.mark.parametrize("seed", [0, 3, 2**32 - 1, 2**32, 2**70 + 5])
@pytest.mark.parametrize("rest", [(), (4,), (0, 10), (5, 2**33), (1, 2, 3, 4)])
@pytest.mark.parametrize("child", [0, 1, 3])
def test_they_are_numpys(seed: int, rest: tuple[int, ...], child: int) -> None:
    expected = [
        np.random.SeedSequence([seed, index, *rest]).spawn(child + 1)[child].generate_state(1)[0]
        for index in INDICES
    ]
    found = first_words((seed, np.array(INDICES, dtype=np.uint32), *rest), child)
    assert found.tolist() == [int(each) for each in expected]


@pytest.mark.parametrize(("first_round", "steps"), [(0, 0), (4, 0), (0, 30), (2, 7)])
def test_chains_of_a_group_begin_as_each_alone(first_round: int, steps: int) -> None:
    for indices in (INDICES, (*INDICES, 2**40)):
        expected = [origin_of_chain(3, index, first_round, steps)[0] for index in indices]
        assert environment_seeds_of(3, indices, first_round, steps) == expected
