"""From settings and a workload to a specification: what follows from logs, and from a promise of privacy."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from cospan.cli.settings.run_specification import RunPlan, plan_again, plan_alone, plan_with_workload
from cospan.client.learning.run_config import specify
from cospan.core.specification import RunSpecification
from cospan.wire.errors import InvalidValueError
from cospan.wire.privacy_budget import Budget, noise_multiplier


def test_the_rounds_of_logs_follow_from_their_rows_and_a_resumed_run_keeps_its_own(tmp_path: Path) -> None:
    rows = "".join(f"{row % 10},{row % 7}\n" for row in range(61))
    (tmp_path / "log.csv").write_text(f"x,r\n{rows}", encoding="utf-8")
    (tmp_path / "fleet.toml").write_text(
        '[log]\nreward = "r"\n[features.x]\nkind = "numeric"\nrange = [0, 9]\n', encoding="utf-8"
    )
    reference = f"logs:{tmp_path}/fleet.toml:{tmp_path}/log.csv"

    def planned(**flags: str) -> RunPlan:
        return plan_with_workload(flags, None, reference=reference, spec_file=None, rounds=300)

    assert planned(steps_per_round="10").specification.rounds == 6
    asked = planned(steps_per_round="10", rounds="50").specification
    assert asked.rounds == 50
    assert plan_again(asked, {}, None).specification == asked


# Differential privacy -------------------------------------------------------------------------------------------

PROMISE = "epsilon=8,delta=1e-5"


def private(**flags: Any) -> RunSpecification:
    values = {"secure_sums": True, "dp": PROMISE, "agents": "8", "rounds": "10"} | flags
    plan = plan_with_workload(values, None, reference="queues", spec_file=None, rounds=300)
    plan.close()
    return plan.specification


def test_a_promise_becomes_the_least_noise_that_keeps_it() -> None:
    spec = private()
    assert (spec.dp_epsilon, spec.dp_delta, spec.dp_vectors) == (8.0, 1e-5, 10)
    assert spec.dp_noise_multiplier == Budget.of(8.0, 1e-5, 10).multiplier
    assert (spec.dp_gradient_bound, spec.dp_curvature_bound, spec.dp_influence_bound) == (10.0, 50.0, 1.0)
    assert private(dp=f"{PROMISE},vectors=12,gradient-bound=5").dp_vectors == 12
    assert specify("queues", agents=8, rounds=10, secure_sums=True, dp=PROMISE) == spec


def test_it_is_a_setting_of_every_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "cospan.toml"
    config.write_text(f'dp = "{PROMISE}"\nsecure_sums = true\nrounds = 10\n', encoding="utf-8")

    def epsilon(**flags: str) -> float:
        flags |= {"feature_dim": "4", "rank": "2"}
        return plan_alone(flags, config, spec_file=None, rounds=0).specification.dp_epsilon

    assert epsilon() == 8.0
    monkeypatch.setenv("COSPAN_DP", "epsilon=4,delta=1e-5")
    assert epsilon() == 4.0
    assert epsilon(dp="epsilon=2,delta=1e-5") == 2.0
    assert epsilon(dp="off") == 0.0


def test_a_run_that_is_run_again_keeps_its_promise_and_off_takes_it_away() -> None:
    spec = private()
    again = plan_again(spec, {}, None)
    again.close()
    assert again.specification == spec
    without = plan_again(spec, {"dp": "off"}, None)
    without.close()
    assert not without.specification.is_private
    assert without.specification.problems() == []


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"dp": "epsilon=8"}, "dp is 'epsilon=8' in --dp; it lacks delta"),
        ({"dp": "eps=8,delta=1e-5"}, "'eps=8' in it is none of epsilon, delta"),
        ({"dp": "epsilon=0,delta=1e-5"}, "epsilon is 0; it must be above 0"),
        ({"secure_sums": False}, "differential privacy needs secure sums"),
        ({"rounds": "0"}, "dp asks for ε = 8 and rounds is 0; a budget has a number of rounds"),
        ({"improve": "1", "rounds": "200"}, "improvement steps send more than the vector"),
        ({"preset": "compact"}, "differential privacy is for the preset practical"),
        ({"preset": "full-history"}, "differential privacy is for the preset practical"),
        ({"dp": "epsilon=8,delta=0.2"}, "dp_delta is 0.2 and agents is 8; it must be below 1 / agents"),
        ({"dp": f"{PROMISE},vectors=9"}, "dp_vectors is 9 and rounds is 10"),
        ({"agents": "2"}, "of fewer processes than min_cohort no secure sum is formed"),
        ({"dp": "epsilon=8,delta=1e-5,curvature-bound=1e12"}, "exceeds the range of the fixed point"),
    ],
)
def test_what_cannot_be_promised_is_refused_with_its_reason(flags: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidValueError, match=r".") as refusal:
        private(**flags)
    assert problem in str(refusal.value)


def test_in_python_a_wrong_promise_has_the_same_sentence() -> None:
    with pytest.raises(InvalidValueError, match=r"dp is 'epsilon=8'; it lacks delta"):
        specify("queues", agents=8, rounds=10, secure_sums=True, dp="epsilon=8")
    with pytest.raises(InvalidValueError, match="there is no value 'dp_epsilon' of a run"):
        specify("queues", agents=8, rounds=10, secure_sums=True, dp_epsilon=8.0)


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("dp_accounting"):
            raise ImportError(name)
        return load(name, *rest)

    noise_multiplier.cache_clear()
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InvalidValueError, match=r"needs the package dp-accounting; pip install 'cospan\[dp\]'"):
        private(dp="epsilon=7.77,delta=1e-5")
