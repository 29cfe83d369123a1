"""What a process needs for the rounds of a run, and which runs are refused for it."""

from dataclasses import replace

from cospan.client.environment.group_rollout import keeps_numbers
from cospan.client.session.message_checks import memory_problem, round_bytes
from cospan.client.workloads.synthetic import workload
from cospan.core.method import PRESETS
from cospan.core.specification import RunSpecification
from cospan.wire.errors import RunTooLargeError

FEATURES = workload.make_site(0, 0).features
ENDLESS = RunSpecification(
    workload="synthetic", feature_dim=20, rank=3, agents=100_000, rounds=0, seed=0, method=PRESETS["practical"](10)
)


def test_history_grows_with_the_rounds_of_a_run_up_to_its_bound() -> None:
    """Of 400 transitions of 20 features, twice; 20 rounds have 200 transitions."""
    short, long = replace(ENDLESS, rounds=20), replace(ENDLESS, rounds=1000)
    assert round_bytes(long, 1) == round_bytes(ENDLESS, 1)
    assert round_bytes(ENDLESS, 1) - round_bytes(short, 1) == 2 * 8 * 20 * 200


def test_numbers_of_states_take_less_than_their_features() -> None:
    assert round_bytes(ENDLESS, 1) - round_bytes(ENDLESS, 1, in_table=True) == 8 * (2 * 20 - 3) * 400


def test_fifty_thousand_agents_of_a_finite_chain_fit_into_a_process() -> None:
    assert keeps_numbers(workload, FEATURES, ENDLESS)
    assert not keeps_numbers(replace(workload, make_fleet=None), FEATURES, ENDLESS)
    assert not keeps_numbers(workload, FEATURES, replace(ENDLESS, improve=1))
    assert memory_problem(ENDLESS, 50_000, 4.0, in_table=True) is None
    refusal = memory_problem(ENDLESS, 50_000, 4.0)
    assert isinstance(refusal, RunTooLargeError)
    assert "for 50000 agents" in str(refusal)
