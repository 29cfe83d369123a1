"""Groups of agents that tests of several files begin with."""

from dataclasses import replace

import numpy as np
import pytest

from cospan.client.environment.group_rollout import GroupRollout
from cospan.client.environment.rollout import Chain
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.learning.group_blocks import GroupSites
from cospan.client.learning.group_learner import GroupLearner
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.workload import Workload
from cospan.core.aggregation.basis_update import initial_head_covariance
from cospan.core.method import PRESETS
from cospan.core.specification import RunSpecification

SEED, INDICES = 3, (0, 2, 3, 7, 40)
BOTH = pytest.mark.parametrize("together", [True, False])


def workload_of(name: str, *, together: bool = True) -> Workload:
    found = load_workload(name)
    return found if together else replace(found, make_fleet=None)


def specification(name: str, preset: str) -> RunSpecification:
    workload = load_workload(name)
    features = make_site(workload, 0, SEED).features
    return RunSpecification(
        workload=name,
        feature_dim=features.dim,
        rank=workload.rank,
        agents=len(INDICES),
        rounds=10,
        seed=SEED,
        method=PRESETS[preset](workload.steps_per_round),
        feature_fingerprint=features.fingerprint,
    )


def announced_to(name: str, preset: str) -> tuple[np.ndarray, np.ndarray | None]:
    """B_0, and W_0 where the method has it."""
    spec = specification(name, preset)
    return spec.initial_basis(), initial_head_covariance(spec.method, spec.rank)


def group_of(
    name: str, preset: str = "practical", *, together: bool = True, with_baseline: bool = False
) -> GroupLearner:
    spec, workload = specification(name, preset), workload_of(name, together=together)
    sites = GroupSites.of(workload, INDICES, spec.feature_dim, SEED)
    names = [f"site-{index}" for index in INDICES]
    return GroupLearner(sites, spec, names=names, with_baseline=with_baseline)


def single_of(name: str, index: int, preset: str = "practical") -> SiteLearner:
    site = make_site(load_workload(name), index, SEED)
    return SiteLearner(site, specification(name, preset), name=f"site-{index}", index=index)


def same_data(group: GroupRollout, chains: list[Chain], steps: int) -> None:
    """Agents that step together see what each sees alone."""
    played = group.advance(steps)
    for number, chain in enumerate(chains):
        expected = chain.advance(steps)
        np.testing.assert_array_equal(played.features[number], expected.features)
        np.testing.assert_array_equal(played.rewards[number], expected.rewards)
    assert group.steps == chains[0].steps
    assert group.reward_sums.tolist() == [chain.reward_sum for chain in chains]
