"""Agents of one process that step together: each sees, learns and saves exactly what it would alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract.groups import BOTH, INDICES, SEED, announced_to, group_of, same_data, single_of, workload_of

from cospan.client.environment.group_rollout import BatchedRollouts, GroupRollout, SequentialRollouts, chain_group
from cospan.client.environment.rollout import Chain
from cospan.client.environment.workload_loader import load_workload, make_site, make_sites
from cospan.client.files.group_file import GROUP, agents_of, load_group
from cospan.client.files.result_file import contents
from cospan.client.learning.group_blocks import GroupSites
from cospan.client.learning.group_learner import GroupLearner
from cospan.client.workload import Sites, Workload
from cospan.core.aggregation.basis_update import initial_head_covariance
from cospan.core.linalg.matrices import to_dense
from cospan.core.method import PRESETS
from cospan.core.specification import RunSpecification
from cospan.wire.errors import WorkloadBehaviourError, WorkloadError
from cospan.wire.files.npz import save_npz

STEPS = (1, 20, 700, 3, 400)
"""Steps of some rounds: with the start more than a block of 1024 draws."""


TOGETHER = ("synthetic", "synthetic-common-reward", "queues")
WORKLOADS = pytest.mark.parametrize("name", TOGETHER)


def chains_of(workload: Workload, first_round: int = 0) -> GroupRollout:
    names = [f"site-{index}" for index in INDICES]
    sites = make_sites(workload, INDICES, SEED)
    return chain_group(sites, names=names, indices=INDICES, seed=SEED, first_round=first_round)


def alone(workload: Workload, first_round: int = 0) -> list[Chain]:
    return [
        Chain(make_site(workload, index, SEED), name="", index=index, seed=SEED, first_round=first_round)
        for index in INDICES
    ]


@WORKLOADS
@BOTH
@pytest.mark.parametrize("first_round", [0, 6])
def test_an_agent_in_a_group_sees_exactly_the_same_data_as_alone(
    name: str, together: bool, first_round: int
) -> None:
    workload = workload_of(name, together=together)
    group, chains = chains_of(workload, first_round), alone(workload, first_round)
    assert isinstance(group, BatchedRollouts if together else SequentialRollouts)
    for steps in STEPS:
        same_data(group, chains, steps)


def spoilt(sites: Any, place: int, step: int) -> Any:
    """The same sites; the one in this place gives the reward nan in this step."""
    if isinstance(sites, Sites):
        return replace(sites, chains=Spoilt(sites.chains, place, step))
    taken, env = [0], sites[place].env
    inner = env.step

    def spoil(action: Any) -> Any:
        observation, reward, *rest = inner(action)
        taken[0] += 1
        return observation, float("nan") if taken[0] == step + 1 else reward, *rest

    env.step = spoil
    return sites


class Spoilt:
    """Chains of which one gives a reward that is not finite."""

    def __init__(self, chains: Any, place: int, step: int) -> None:
        self._chains, self._place, self._step, self._steps = chains, place, step, 0

    def reset(self, seeds: Any, generators: Any) -> None:
        self._chains.reset(seeds, generators)

    def advance(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        observations, rewards = self._chains.advance(steps)
        at, self._steps = self._step - self._steps, self._steps + steps
        if 0 <= at < steps:
            rewards = rewards.copy()
            rewards[self._place, at] = float("nan")
        return observations, rewards

    def save_state(self) -> Any:
        return self._chains.save_state()

    def load_state(self, state: Any) -> None:
        self._chains.load_state(state)


@WORKLOADS
@BOTH
@pytest.mark.parametrize("place", [0, 4])
def test_who_fails_is_dropped_and_the_others_see_the_same_data_as_before(
    name: str, together: bool, place: int
) -> None:
    workload = workload_of(name, together=together)
    names = [f"site-{index}" for index in INDICES]
    sites = spoilt(make_sites(workload, INDICES, SEED), place, 25)
    group = chain_group(sites, names=names, indices=INDICES, seed=SEED)
    chains = alone(workload)
    same_data(group, chains, 20)
    played, failures = group.advance_those_that_can(20)
    assert {where: str(why) for where, why in failures.items()} == {
        place: f"the environment of {names[place]} gave the reward nan in step 25; it must be finite"
    }
    group.drop(failures)
    others = [chain for number, chain in enumerate(chains) if number != place]
    for number, chain in enumerate(others):
        np.testing.assert_array_equal(played.rewards[number], chain.advance(20).rewards)
    for steps in (7, 400):
        same_data(group, others, steps)
    assert len(group.labels) == len(group.references) == 4


def learner_of(workload: Workload, spec: RunSpecification, place: int | None = None) -> GroupLearner:
    sites = make_sites(workload, INDICES, SEED)
    sites = sites if place is None else spoilt(sites, place, 3 * spec.method.steps_per_round + 2)
    names = [f"site-{index}" for index in INDICES]
    return GroupLearner(GroupSites((INDICES,), (sites,)), spec, names=names, with_baseline=True)


@BOTH
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_group_goes_on_without_a_member_as_if_it_had_never_been(
    together: bool, preset: str, tmp_path: Path
) -> None:
    workload, name = workload_of("queues", together=together), "queues"
    features = make_site(workload, 0, SEED).features
    spec = RunSpecification(name, features.dim, 2, len(INDICES), 9, SEED, PRESETS[preset](10))
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(features.dim, 2)))[0]
    covariance = initial_head_covariance(spec.method, spec.rank)
    group, whole = learner_of(workload, spec, place=1), learner_of(workload, spec)
    failed: list[tuple[str, int, str]] = []
    group.on_failure.append(lambda agent, why: failed.append((agent.name, len(agent.learning_curve.round), why)))
    for number in range(5):
        upload, _ = group.learn(number, basis, covariance), whole.learn(number, basis, covariance)
    ((who, rounds, why),) = failed
    assert (who, rounds) == ("site-2", 3)
    assert group.failures == {"site-2": why}
    assert upload.contribution.weight == 4.0
    keep = [0, 2, 3, 4]
    np.testing.assert_allclose(group.weights, whole.weights[keep], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(group.gains, whole.gains[keep], rtol=1e-12)
    assert [value.shape for value in group.learning_curve.value_error] == [(4,)] * 5
    check_that_it_goes_on(group, learner_of(workload, spec), tmp_path)


def check_that_it_goes_on(group: GroupLearner, again: GroupLearner, folder: Path) -> None:
    """A process that is started again makes all sites, and continues without the one that had failed."""
    path = folder / f"{group.name}.npz"
    save_npz(path, **GROUP.contents(group, "run"))
    GROUP.resume(again, path, "run")
    assert again.names == group.names
    assert set(again.failures) == {"site-2"}
    np.testing.assert_array_equal(again.weights, group.weights)
    assert len(agents_of(load_group(path))) == 4


@WORKLOADS
def test_a_group_knows_what_its_sites_know(name: str) -> None:
    workload = workload_of(name)
    group, sites = chains_of(workload), [make_site(workload, index, SEED) for index in INDICES]
    assert group.labels == tuple(site.label for site in sites)
    assert group.features.fingerprint == sites[0].features.fingerprint
    for reference, site in zip(group.references, sites, strict=True):
        assert reference is not None
        assert site.reference is not None
        assert reference.gain == site.reference.gain
        np.testing.assert_array_equal(reference.weights, site.reference.weights)
        np.testing.assert_array_equal(reference.covariance, site.reference.covariance)


@WORKLOADS
@BOTH
@pytest.mark.parametrize("before", [1, 1023, 1024])
def test_saved_chains_have_the_same_future(name: str, together: bool, before: int) -> None:
    """Also where the last draw of a block is taken, and nothing of it is left."""
    workload = workload_of(name, together=together)
    group, chains, again = chains_of(workload), alone(workload), chains_of(workload)
    same_data(group, chains, before)
    saved = group.saved()
    assert saved is not None
    assert again.go_on(group.steps, group.reward_sums, saved) == ""
    for steps in STEPS:
        same_data(again, chains, steps)


@WORKLOADS
@BOTH
def test_chains_that_cannot_go_on_begin_anew_as_each_would_alone(name: str, together: bool) -> None:
    workload = workload_of(name, together=together)
    group, chains = chains_of(workload), alone(workload)
    assert group.saved() is None, "nothing has begun"
    assert "were not saved" in group.go_on(30, np.zeros(len(INDICES)), None)
    for chain in chains:
        chain.go_on(30, 0.0, None)
    same_data(group, chains, 20)


@WORKLOADS
@pytest.mark.parametrize("change", [{"states": np.full(5, 1000)}, {"states": np.zeros(4)}, {"left": 2000}])
def test_a_state_that_means_nothing_is_refused(name: str, change: dict[str, Any]) -> None:
    sites = make_sites(workload_of(name), INDICES, SEED)
    assert isinstance(sites, Sites)
    sites.chains.reset(range(5), [np.random.default_rng(0)] * 5)
    with pytest.raises(ValueError, match=r"states of|uniforms of"):
        sites.chains.load_state({**sites.chains.save_state(), **change})


def test_sites_beyond_the_workloads_are_refused() -> None:
    with pytest.raises(WorkloadError, match=r"has no site 25; take 0 to 24"):
        make_sites(load_workload("microgrids"), (24, 25), SEED)


@pytest.mark.parametrize("given", ["nothing", "too few"])
def test_a_workload_that_makes_no_sites_is_named(given: str) -> None:
    whole = make_sites(load_workload("queues"), (0,), SEED)
    broken = replace(
        load_workload("queues"), make_fleet=lambda indices, seed: None if given == "nothing" else whole
    )
    with pytest.raises(
        WorkloadBehaviourError, match="it must make Sites with a reference and a label for each of 2"
    ):
        make_sites(broken, (0, 1), SEED)


class Broken:
    """Chains that give what they should not."""

    def __init__(self, reward: float = 0.0, states: int = 0) -> None:
        self.reward, self.states = reward, states

    def reset(self, seeds: Any, generators: Any) -> None: ...

    def advance(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        rewards = np.zeros((2, steps))
        rewards[1, -1] = self.reward
        return np.zeros((2, steps + 1 + self.states), dtype=int), rewards

    def save_state(self) -> dict[str, Any]:
        return {"what": object()}

    def load_state(self, state: Any) -> None: ...


@pytest.mark.parametrize(
    ("chains", "text"),
    [
        (Broken(reward=float("nan")), "the environment of site-5 gave the reward nan in step 2; it must be finite"),
        (Broken(states=1), r"gave observations of shape \(2, 5\) and rewards of shape \(2, 3\); for 3 steps"),
    ],
)
def test_chains_that_break_their_contract_are_named(chains: Broken, text: str) -> None:
    sites = make_sites(load_workload("queues"), (4, 5), SEED)
    assert isinstance(sites, Sites)
    group = chain_group(replace(sites, chains=chains), names=("site-4", "site-5"), indices=(4, 5), seed=SEED)
    with pytest.raises(WorkloadBehaviourError, match=text):
        group.advance(3)


def test_chains_whose_state_is_not_plain_are_not_saved(caplog: pytest.LogCaptureFixture) -> None:
    sites = make_sites(load_workload("queues"), (4, 5), SEED)
    assert isinstance(sites, Sites)
    group = chain_group(replace(sites, chains=Broken()), names=("site-4", "site-5"), indices=(4, 5), seed=SEED)
    group.advance(3)
    assert group.saved() is None
    assert "the environment state of site-4 to site-5 cannot be saved" in caplog.text


# Learning ---------------------------------------------------------------------------------------------------------


def values_of(learner: Any) -> dict[str, np.ndarray]:
    """What stands in an agent's file, but for where its chain stands."""
    found = contents(learner, run_id="run-1")
    return {name: np.asarray(value) for name, value in found.items() if not name.startswith("chain_")}


def same_files(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if value.dtype.kind in "US":
            assert str(found[key]) == str(value)
        else:
            np.testing.assert_allclose(found[key], value, rtol=1e-9, atol=1e-10, err_msg=key)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("name", ["synthetic", "queues"])
@BOTH
def test_each_agents_file_is_that_of_the_agent_alone(preset: str, name: str, together: bool) -> None:
    """To rounding, independent TD included; and what the group sends is the sum of what they send."""
    group, singles = (
        group_of(name, preset, together=together, with_baseline=True),
        [single_of(name, index, preset) for index in INDICES],
    )
    spec = group.specification
    covariance = initial_head_covariance(spec.method, spec.rank)
    for number in range(8):
        basis = replace(spec, seed=number).initial_basis()
        upload = group.learn(number, basis, covariance)
        uploads = [single.learn(number, basis, covariance) for single in singles]
        assert upload.round == number
        assert upload.contribution.weight == len(INDICES)
        total = np.sum([to_dense(each.contribution.gradient) for each in uploads], axis=0)
        np.testing.assert_allclose(
            to_dense(upload.contribution.gradient), total, rtol=0, atol=1e-10 * np.abs(total).max()
        )
    for agent, single in zip(group.agents(), singles, strict=True):
        same_files(values_of(agent), values_of(single))
    np.testing.assert_allclose(group.mean_rewards, [single.mean_reward for single in singles], rtol=1e-12)
    np.testing.assert_allclose(group.gains, [single.gain.mean[0] for single in singles], rtol=1e-9)


def test_the_cut_into_blocks_changes_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = group_of("synthetic")
    monkeypatch.setattr("cospan.client.learning.group_blocks._MOST", 2)
    cut = group_of("synthetic")
    assert [len(group.blocks) for group in (whole, cut)] == [1, 3]
    for number in range(4):
        at = announced_to("synthetic", "practical")
        sent = [to_dense(group.learn(number, *at).contribution.gradient) for group in (whole, cut)]
        np.testing.assert_allclose(sent[1], sent[0], rtol=0, atol=1e-12 * np.abs(sent[0]).max())
    np.testing.assert_allclose(cut.weights, whole.weights, rtol=0, atol=1e-12)
