"""Vector environments: each part is a site's chain, the same as if it were stepped alone, also at its ends."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from contract.groups import same_data
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from runs import D, Ring, States, coin

from cospan.client import Site, Workload, vector_sites
from cospan.client.environment.group_rollout import BatchedRollouts, chain_group
from cospan.client.environment.rollout import Chain
from cospan.client.environment.vector_env import VectorEnvRollouts
from cospan.client.environment.workload_loader import make_site
from cospan.client.workload import Policy, Sites
from cospan.simulation import Fleet
from cospan.wire.errors import WorkloadBehaviourError

SEED, INDICES = 3, (0, 2, 3, 9)
ENDING = pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])


class Poles:
    """CartPole's four numbers, squeezed into the unit ball."""

    dim, fingerprint = 4, "poles"

    def __call__(self, observation: Any) -> np.ndarray:
        return self.batch([observation])[0]

    def batch(self, observations: Any) -> np.ndarray:
        return 0.5 * np.tanh(np.asarray(observations, dtype=np.float64))


def pole(limit: int = -1) -> gymnasium.Env[Any, Any]:
    """It falls, which is a true end, after 20 steps or so."""
    return gymnasium.make("CartPole-v1", max_episode_steps=limit)


def poles(mode: AutoresetMode, limit: int = -1) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: pole(limit)] * len(INDICES), autoreset_mode=mode)


class Steps(Ring):
    """A ring whose state can be saved, and which ends at its last state."""

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        observation, reward, _, _, info = super().step(action)
        return observation, reward, observation == D, False, info

    def save_state(self) -> dict[str, Any]:
        return {"state": self._state}

    def load_state(self, state: dict[str, Any]) -> None:
        self._state = state["state"]


def rings(mode: AutoresetMode, indices: Sequence[int] = INDICES) -> SyncVectorEnv:
    return SyncVectorEnv([lambda index=index: Steps(index) for index in indices], autoreset_mode=mode)


def together(sites: Sites) -> BatchedRollouts:
    names = [f"site-{index}" for index in INDICES]
    group = chain_group(sites, names=names, indices=INDICES, seed=SEED)
    assert isinstance(group, BatchedRollouts)
    return group


def alone(sites: Sequence[Site]) -> list[Chain]:
    return [Chain(site, name="", index=index, seed=SEED) for site, index in zip(sites, INDICES, strict=True)]


def ring_sites() -> list[Site]:
    return [Site(Steps(index), States(), coin) for index in INDICES]


@ENDING
def test_each_chain_is_what_it_is_alone_over_many_ends(mode: AutoresetMode) -> None:
    group = together(vector_sites(poles(mode), Poles(), coin))
    chains = alone([Site(pole(), Poles(), coin) for _ in INDICES])
    for steps in (1, 20, 150, 3):
        same_data(group, chains, steps)


@ENDING
def test_sites_that_differ_with_policies_of_their_own(mode: AutoresetMode) -> None:
    def pushing(action: int) -> Policy:
        return lambda observation, rng: action if rng.random() < 0.8 else 1 - action

    policies = [pushing(number % 2) for number in range(len(INDICES))]
    group = together(vector_sites(rings(mode), States(), policies))
    chains = alone([replace(site, policy=policy) for site, policy in zip(ring_sites(), policies, strict=True)])
    for steps in (5, 200, 1):
        same_data(group, chains, steps)


def test_a_policy_of_all_at_once() -> None:
    def coins(observations: np.ndarray, generators: Sequence[np.random.Generator]) -> np.ndarray:
        return np.array([coin(each, rng) for each, rng in zip(observations, generators, strict=True)])

    group = together(vector_sites(rings(AutoresetMode.SAME_STEP), States(), batch_policy=coins))
    same_data(group, alone(ring_sites()), 100)


def test_the_default_mode_is_taken_as_long_as_nothing_ends() -> None:
    def endless(index: int) -> Ring:
        return Ring(index)

    env = SyncVectorEnv([lambda index=index: endless(index) for index in INDICES])
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    group = together(vector_sites(env, States(), coin))
    same_data(group, alone([Site(endless(index), States(), coin) for index in INDICES]), 100)
    ends = together(vector_sites(poles(AutoresetMode.NEXT_STEP), Poles(), coin))
    with pytest.raises(
        WorkloadBehaviourError, match=r"has ended.*make it with autoreset_mode=AutoresetMode.SAME_STEP"
    ):
        ends.advance(200)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_time_limit_is_refused(mode: AutoresetMode) -> None:
    group = together(vector_sites(poles(mode, limit=3), Poles(), coin))
    with pytest.raises(WorkloadBehaviourError, match=r"^sub-environment 0 was truncated; .*max_episode_steps=-1"):
        group.advance(10)


@ENDING
def test_saved_chains_go_on_to_the_bit(mode: AutoresetMode) -> None:
    group, chains = together(vector_sites(rings(mode), States(), coin)), alone(ring_sites())
    assert group.saved() is None, "they have not begun"
    same_data(group, chains, 37)
    saved, sums = group.saved(), group.reward_sums
    assert saved is not None
    again = together(vector_sites(rings(mode), States(), coin))
    assert again.go_on(37, sums, saved) == ""
    same_data(again, chains, 50)
    fewer = chain_group(
        vector_sites(rings(mode, (0, 2)), States(), coin), names=("a", "b"), indices=(0, 2), seed=SEED
    )
    assert "it is of other environments" in fewer.go_on(37, sums[:2], saved)


def test_those_that_cannot_be_saved_are_not_complained_of(caplog: pytest.LogCaptureFixture) -> None:
    group = together(vector_sites(poles(AutoresetMode.SAME_STEP), Poles(), coin))
    group.advance(3)
    assert group.saved() is None
    assert not caplog.records


class Pairs(Ring):
    def __init__(self) -> None:
        super().__init__(0)
        self.observation_space = gymnasium.spaces.Tuple((self.observation_space,) * 2)  # type: ignore[assignment]


def test_what_is_not_taken() -> None:
    env, env_of_pairs = rings(AutoresetMode.SAME_STEP), SyncVectorEnv([Pairs])
    wrong: list[tuple[VectorEnv[Any, Any, Any], dict[str, Any], str]] = [
        (env, {}, "needs a policy or a batch_policy"),
        (env, {"policy": coin, "batch_policy": coin}, "needs a policy or a batch_policy"),
        (env, {"policy": [coin]}, "there are 1 policies for 4 sub-environments"),
        (env_of_pairs, {"policy": coin}, "has observations of a Tuple space"),
    ]
    for vector, said, complaint in wrong:
        with pytest.raises(WorkloadBehaviourError, match=complaint):
            VectorEnvRollouts(vector, **said)
    group = chain_group(vector_sites(env, States(), coin), names=("a", "b"), indices=(0, 1), seed=SEED)
    with pytest.raises(WorkloadBehaviourError, match="has 4 sub-environments, and 2 sites were asked for"):
        group.advance(1)
    site = ring_sites()[0]
    object.__setattr__(site, "env", env)  # tests check the types of what is given to a Site; users do not
    with pytest.raises(WorkloadBehaviourError, match=r"made a vector environment for site 0; .*make_fleet"):
        make_site(Workload(lambda index, seed: site, name="w"), 0, 1)


def test_a_fleet_of_them_learns_what_one_of_single_environments_learns() -> None:
    def site(index: int, seed: int) -> Site:
        return Site(Steps(index), States(), coin)

    def fleet(indices: Sequence[int], seed: int) -> Sites:
        return vector_sites(rings(AutoresetMode.SAME_STEP, indices), States(), coin)

    single = Workload(site, name="rings", rank=2, steps_per_round=5)
    first = Fleet(single, agents=5, rounds=20, groups=2).run()
    second = Fleet(replace(single, make_fleet=fleet), agents=5, rounds=20, groups=2).run()
    assert first.basis_sha256 == second.basis_sha256
    for mine, other in zip(first.agents, second.agents, strict=True):
        assert mine.weights.tobytes() == other.weights.tobytes()
