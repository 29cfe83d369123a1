"""The program that says what better policies are worth."""

import json
from pathlib import Path

import numpy as np
import pytest

from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.workloads import microgrids, queues
from cospan.core.exact_solutions import differential_value
from cospan.experiments.decisions.policy_tests import BURN_IN_DAYS, microgrid_cost
from cospan.experiments.optima import queue_optimum
from cospan.simulation import ImprovementSettings, better_decisions


def test_it_prints_each_step_and_writes_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ImprovementSettings(steps=1, rounds=20, trial_rounds=10)
    monkeypatch.setitem(better_decisions._WORKLOADS, "queues", (queues.workload, 2, 2, small))
    better_decisions.main(
        ["queues", "--seeds", "1", "--arms", "alone", "joint-ungated", "--out", str(tmp_path / "out.json")]
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["arm"], each["step"]) for each in lines] == [
        (arm, step) for arm in ("alone", "joint-ungated") for step in (0, 1)
    ]
    assert lines[0]["summary"] == lines[2]["summary"]  # both begin at the uniform policy
    assert lines[3]["taken"] == 2
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [each["summary"] for each in written] == [each["summary"] for each in lines]
    assert len(written[1]["decisions"]) == 2


def test_the_best_policy_of_a_queue_has_the_share_one() -> None:
    parameters = queues.queue_parameters(0, 1)
    _, accept = queue_optimum(0, 1)
    rows = queues.ACTION_FEATURES.batch([(state, action) for state in range(44) for action in (0, 1)])
    # Its values are in the features' span: what is paid and the servers left are all that counts.
    ahead = differential_value(*queues.markov_chain(*parameters, accept.astype(float)))
    chains = [queues.markov_chain(*parameters, float(action)) for action in (0, 1)]
    values = np.stack([paid + chain @ ahead for chain, paid in chains], axis=1).reshape(-1)
    columns = np.column_stack([rows, np.ones(88)])
    weights, *_ = np.linalg.lstsq(columns, values, rcond=None)
    np.testing.assert_allclose(columns @ weights, values, atol=1e-8)
    policy = GreedyPolicy.given(queues.make_site(0, 1)).learnt(weights[:-1], None, 0.0)
    assert better_decisions.queue_shares([policy], 1)[0] == pytest.approx(1.0)


def test_a_policy_that_has_seen_nothing_is_no_trap() -> None:
    policy = GreedyPolicy.given(queues.make_site(0, 1))
    turned_away = np.array([0.0] * 10 + [-1.0] * 4)
    # Turning away has the larger value everywhere, and all of it is within the error bars.
    unsure = policy.learnt(turned_away, 10.0 * np.eye(14), 1.0)
    uniform, sure = better_decisions.queue_shares([policy], 1), policy.learnt(turned_away, None, 1.0)
    assert better_decisions.queue_shares([unsure], 1) == uniform
    assert better_decisions.queue_shares([sure], 1) == pytest.approx(0.0, abs=1e-3)


def test_a_microgrids_cost_is_that_of_its_environment() -> None:
    site = microgrids.make_site(9, 0)
    given = GreedyPolicy.given(site, index=9)
    cost = microgrid_cost(9, given, 3, chains=1, days=4)
    seed = int(np.random.SeedSequence((3, 9, 0x74657374)).generate_state(1)[0])
    seen, rewards = site.env.reset(seed=seed)[0], []
    for _ in range((BURN_IN_DAYS + 4) * 24):
        seen, reward, *_ = site.env.step(given(seen))
        rewards.append(float(reward))
    assert cost == pytest.approx(-sum(rewards[BURN_IN_DAYS * 24 :]) / 4)
    assert microgrid_cost(9, given, 3, chains=1, days=4) == cost
    assert microgrid_cost(9, given, 4, chains=1, days=4) != cost
