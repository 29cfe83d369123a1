"""How the agents of a case are shared among processes."""

import pytest

from cospan.benchmarks.tools import processes
from cospan.benchmarks.tools.processes import Case


@pytest.mark.parametrize("agents", [1, 2, 8, 9, 32, 1024])
def test_every_agent_is_in_one_process(agents: int) -> None:
    shares = processes.shares(Case(agents, 4, 2))
    assert sorted(number for share in shares for number in share) == list(range(1, agents))
    assert len(shares) == agents - 1 if agents <= 8 else 1 <= len(shares) <= agents
