"""Improvement in this process: what it takes, what it keeps, and what it refuses."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cospan.client.workload import Site, Workload
from cospan.client.workloads import microgrids, queues
from cospan.client.workloads.models.microgrids import load_site
from cospan.experiments.optima import queue_gain, uniform_queue_policy
from cospan.simulation import Fleet, Improvement, ImprovementResult, ImprovementSettings
from cospan.simulation.improvement_result import StepDecision
from cospan.wire.errors import InvalidValueError

SEED = 5
SHORT = ImprovementSettings(steps=2, rounds=20, trial_rounds=10)


def improvement(
    workload: Workload | str = "queues", settings: ImprovementSettings = SHORT, agents: int = 3, **constants: Any
) -> Improvement:
    with_sites = Fleet(workload, agents=agents, seed=SEED, rank=4, **constants)
    with_sites.close()
    made = workload if isinstance(workload, Workload) else queues.workload
    return Improvement(made, with_sites.specification, settings)


def weights_of(result: ImprovementResult) -> list[bytes]:
    return [b"" if policy.weights is None else policy.weights.tobytes() for policy in result.policies]


def broken(**changes: Any) -> Workload:
    """The microgrids with some of the functions of their decisions replaced."""

    def make_site(index: int, seed: int) -> Site:
        site = microgrids.make_site(index, seed)
        assert site.decisions is not None
        return replace(site, decisions=replace(site.decisions, **changes))

    return replace(microgrids.workload, make_site=make_site)


@pytest.fixture(scope="module")
def improved() -> tuple[Improvement, ImprovementResult]:
    """The queues after a short run; nothing of it may be changed."""
    made = improvement()
    return made, made.run()


def test_queues_get_better_and_a_second_run_gives_the_same_bits(
    improved: tuple[Improvement, ImprovementResult],
) -> None:
    second, again = improved
    result = Fleet("queues", agents=3, seed=SEED, rank=4).improve(SHORT)
    assert result.improved
    for index in result.improved:
        policy, states = result.policies[index], np.arange(44)
        accepts = np.where(policy.draws(states), uniform_queue_policy(), policy.batch(states))
        assert queue_gain(index, SEED, accepts) > 1.2 * queue_gain(index, SEED, uniform_queue_policy())
    assert weights_of(result) == weights_of(again)
    assert result.basis is not None
    assert again.basis is not None
    assert result.basis.tobytes() == again.basis.tobytes()
    assert result.as_dict() == again.as_dict()
    steps = SHORT.steps * (SHORT.rounds + SHORT.trial_rounds) * queues.workload.steps_per_round
    assert {len(each.log.rewards) for each in second._improvers.values()} == {steps + 1}  # trials among them


def test_a_fleet_that_runs_with_improvement_steps_holds_the_same_policies(
    improved: tuple[Improvement, ImprovementResult],
) -> None:
    steps = {"improve": SHORT.steps, "evaluation_rounds": SHORT.rounds, "trial_rounds": SHORT.trial_rounds}
    result, apart = Fleet("queues", agents=3, seed=SEED, rank=4, **steps).run(), improved[1]
    ours, theirs = ([policy and policy.weights for policy in each.policies] for each in (result, apart))
    np.testing.assert_array_equal(ours, theirs)
    assert sorted(result.decisions, key=lambda each: (each.step, each.index)) == list(apart.decisions)
    assert result.specification.rounds == 2 * 30 + 20
    assert all(agent.steps for agent in result.agents), "what is held in the end is evaluated"
    fleet = Fleet("queues", agents=2, rounds=2)
    assert fleet.run().policies == (None, None)


def test_the_basis_goes_on_and_statistics_are_dropped_with_the_policy_that_they_are_of() -> None:
    made = improvement()
    before = made.step()
    start = made.result.basis
    assert start is not None
    states = [learner.state.steps for learner in made.learners]
    assert any(each.taken for each in before)
    assert [steps == 0 for steps in states] == [each.taken for each in before]
    after = made.step()
    second = made.result.basis
    assert second is not None
    # The second step has turned the basis of the first, rather than a random one.
    turned = np.linalg.svd(start.T @ second)[1]
    unrelated = np.linalg.svd(start.T @ made.result.specification.initial_basis())[1]
    assert turned[1] > unrelated[1]
    for learner, decision, earlier in zip(made.learners, after, states, strict=True):
        steps = SHORT.rounds * queues.workload.steps_per_round
        assert learner.state.steps == (0 if decision.taken else earlier + steps)
    made.close()


def test_only_what_a_trial_proves_is_taken_and_without_a_gate_everything_is() -> None:
    settings = ImprovementSettings(steps=1, rounds=10, trial_rounds=10)
    gated = improvement(microgrids.workload, settings, agents=2).run()
    for decision in gated.decisions:
        assert decision.taken == (decision.bound.lower > 0.0)
        assert decision.bound.pairs == 10
    free = improvement(
        microgrids.workload, ImprovementSettings(steps=1, rounds=12, trial_rounds=12, gate=False)
    ).run()
    assert len(free.improved) == 3
    assert {policy.caution for policy in free.policies if policy is not None} == {0.0}  # they are of plans
    assert "the gate is off" in str(free)


def reasons(found: Sequence[StepDecision]) -> set[str]:
    assert not any(each.taken for each in found)
    return {each.reason for each in found}


def test_a_trial_that_is_too_short_takes_nothing_and_says_so() -> None:
    settings = ImprovementSettings(steps=1, rounds=8, trial_rounds=2)
    (reason,) = reasons(improvement(microgrids.workload, settings).run().decisions)
    assert "raise trial_rounds" in reason


def test_an_afterstate_that_disagrees_takes_nothing_and_says_so() -> None:
    settings = ImprovementSettings(steps=1, rounds=8, trial_rounds=10)
    found = improvement(broken(afterstates=lambda seen, _: seen), settings).run().decisions
    assert all("steps disagree): correct afterstates" in each for each in reasons(found))


def test_functions_that_fail_take_nothing_and_are_named() -> None:
    def fails(seen: np.ndarray, after: np.ndarray) -> np.ndarray:
        raise RuntimeError("no such hour")

    settings = ImprovementSettings(steps=1, rounds=8, trial_rounds=10)
    found = improvement(broken(replayed=fails), settings).run().decisions
    assert all("no such hour" in each for each in reasons(found))


def test_a_site_that_fails_keeps_its_policy_and_the_others_go_on() -> None:
    class Fails(microgrids.MicrogridEnv):
        hours = 0

        def step(self, action: Any) -> Any:
            self.hours += 1
            if self.hours > 100:
                raise RuntimeError("the inverter is gone")
            return super().step(action)

    def make_site(index: int, seed: int) -> Site:
        site = microgrids.make_site(index, seed)
        return replace(site, env=Fails(*load_site(index))) if index == 1 else site

    settings = ImprovementSettings(steps=2, rounds=8, trial_rounds=9)
    made = improvement(replace(microgrids.workload, make_site=make_site), settings)
    found = made.run().decisions
    assert len(found) == 6
    for decision in found:
        assert ("the inverter is gone" in decision.reason) == (decision.index == 1)
        assert decision.bound.pairs == (0 if decision.index == 1 else 9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"explore": 0.0}, "a policy that never explores"),
        ({"cautions": ()}, "give one or more"),
        ({"cautions": (-1.0,)}, "numbers from 0 on"),
        ({"confidence": 0.4}, r"above 0\.5"),
    ],
)
def test_settings_out_of_their_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        improvement(settings=ImprovementSettings(**changes))


def test_a_fleet_that_cannot_be_improved_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="does not say what its actions lead to"):
        Fleet("synthetic", agents=2).improve(SHORT)
    with pytest.raises(InvalidValueError, match="with the preset practical"):
        Fleet("queues", agents=2, preset="compact").improve(SHORT)
    fleet = Fleet("queues", agents=2, rounds=3)
    fleet.step()
    with pytest.raises(InvalidValueError, match="has run rounds"):
        fleet.improve(SHORT)
    fleet.close()
