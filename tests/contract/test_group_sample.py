"""Large fleets, of which a sample is refreshed in most of the rounds (docs/adr/0041)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from contract.groups import SEED, announced_to, specification, workload_of

from cospan.client.files.group_file import GROUP, member_of
from cospan.client.files.learner_values import loaded_posterior
from cospan.client.group import group_of
from cospan.client.learning.group_blocks import GroupSites
from cospan.client.learning.group_learner import GroupLearner
from cospan.core.learning.schedules import LEAST_ROUNDS, Refresh, refresh_of_others
from cospan.core.linalg.matrices import to_dense
from cospan.core.specification import RunSpecification
from cospan.wire.files.npz import save_npz

INDICES = (0, 1, 2, 5, 6, 7, 8, 9, 20, 21)
AT = announced_to("synthetic", "practical")


def spec_of(rounds: int, *, sample: int = 3) -> RunSpecification:
    spec = specification("synthetic", "practical")
    method = replace(spec.method, refresh_growth=1.5, refresh_sample=sample)
    return replace(spec, agents=len(INDICES), rounds=rounds, method=method)


def made(spec: RunSpecification, indices: tuple[int, ...] = INDICES) -> GroupLearner:
    every = spec.method.sampled_every(spec.agents) if indices is INDICES else 1
    sites = GroupSites.of(workload_of("synthetic"), indices, spec.feature_dim, SEED, sampled_every=every)
    found = group_of(sites, spec, names=[f"site-{index}" for index in indices], with_baseline=False)
    assert isinstance(found, GroupLearner)
    return found


def test_the_sample_is_spread_over_the_group_and_comes_first() -> None:
    group = made(spec_of(20))
    assert group.indices == (0, 5, 8, 21, 1, 2, 6, 7, 9, 20)
    assert group.names == tuple(f"site-{index}" for index in group.indices)
    assert [block.is_sampled for block in group.blocks] == [True, False]
    assert group.name == made(spec_of(20, sample=0)).name


def test_agents_outside_of_the_sample_count_for_nothing_before_their_first_refresh() -> None:
    spec = spec_of(60)
    group, alone = made(spec), made(spec, (0, 5, 8, 21))
    for number in range(6):
        sent, of_sample = (each.learn(number, *AT).contribution for each in (group, alone))
        found, expected = to_dense(sent.gradient), to_dense(of_sample.gradient)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
        assert (sent.weight, of_sample.weight) == (10.0, 4.0)
        if spec.method.sends_pooled_in(number):
            assert sent.pooled is not None
            assert of_sample.pooled is not None
            np.testing.assert_allclose(sent.pooled, of_sample.pooled, rtol=1e-9)
    assert np.isfinite(group.value_errors()).tolist() == [True] * 4 + [False] * 6
    np.testing.assert_allclose(group.weights[:4], alone.weights, rtol=0, atol=1e-9 * np.abs(alone.weights).max())
    assert not group.weights[4:].any()


def test_all_are_refreshed_from_the_sixteenth_round_on_and_in_the_last() -> None:
    """By the last round, the others have learnt what they would have, but for the basis and earlier refreshes."""
    spec = spec_of(36)
    group, every = made(spec), made(spec_of(36, sample=0))
    refreshed = []
    for number in range(36):
        sent = group.learn(number, *AT).contribution
        every.learn(number, *AT)
        posterior = group.blocks[-1].state.learner.posterior
        assert posterior is not None
        refreshed.append(posterior.refreshed)
        assert (sent.pooled is not None) == spec.method.sends_pooled_in(number)
    assert refreshed == [0] * 18 + [19] * 17 + [36]
    places = np.argsort(group.indices)
    ratio = group.value_errors()[places] / every.value_errors()
    assert 0.8 < np.exp(np.log(ratio).mean()) < 1.25
    assert np.isfinite(group.learning_curve.lstd_alone_error[-1]).all()
    assert np.isfinite(group.learning_curve.lstd_alone_error[4]).sum() == 4


@pytest.mark.parametrize("rounds", [5, 30])
def test_such_a_group_goes_on_from_its_file_bit_for_bit(rounds: int, tmp_path: Path) -> None:
    """Before the others' first refresh and after it, over one that is to come."""
    spec, path = spec_of(90), tmp_path / "group.npz"
    group = made(spec)
    for number in range(rounds):
        group.learn(number, *AT)
    save_npz(path, **GROUP.contents(group, "run-1"))
    again = made(spec)
    assert GROUP.resume(again, path, "run-1") == ""
    for number in range(rounds, 45):
        sent = [to_dense(each.learn(number, *AT).contribution.gradient) for each in (group, again)]
        np.testing.assert_array_equal(sent[0], sent[1])
    files = [GROUP.contents(each, "run-1") for each in (group, again)]
    assert files[0].keys() == files[1].keys()
    for key, value in files[0].items():
        np.testing.assert_array_equal(np.asarray(files[1][key]), np.asarray(value), err_msg=key)


def test_where_all_of_the_sample_have_failed_the_others_take_its_place(tmp_path: Path) -> None:
    spec, path = spec_of(90), tmp_path / "group.npz"
    group = made(spec)
    for number in range(5):
        group.learn(number, *AT)
    group.drop(dict.fromkeys(("site-0", "site-5", "site-8", "site-21"), "it failed"))
    save_npz(path, **GROUP.contents(group, "run-1"))
    again = made(spec)
    assert GROUP.resume(again, path, "run-1") == ""
    for each in (group, again):
        pooled = each.learn(5, *AT).contribution.pooled
        assert pooled is not None
        assert 0.6 <= pooled[-1] <= 6.0
        assert np.isfinite(each.value_errors()).all()
    np.testing.assert_array_equal(again.weights, group.weights)


def test_one_of_the_others_is_read_with_its_own_refresh(tmp_path: Path) -> None:
    spec, path = spec_of(90), tmp_path / "group.npz"
    group, expected = made(spec), {}
    for number in range(30):
        group.learn(number, *AT)
        if number in (9, 29):
            save_npz(path, **GROUP.contents(group, "run-1"))
            for name in ("site-5", "site-20"):
                result = member_of(path, name)
                assert result is not None
                state = loaded_posterior(result, spec.feature_dim)
                assert state is not None
                assert state.posterior is not None
                expected[number, name] = (state.posterior.refreshed, state.posterior.prior is None)
    assert expected == {
        (9, "site-5"): (9, False),
        (9, "site-20"): (0, True),
        (29, "site-5"): (28, False),
        (29, "site-20"): (19, False),
    }


def test_others_are_refreshed_where_it_takes_no_longer_than_the_rounds_between() -> None:
    left_out, pooled = Refresh.LEFT_OUT, Refresh.WHEN_POOLED
    assert refresh_of_others(LEAST_ROUNDS - 1, 0, None) is left_out
    assert refresh_of_others(LEAST_ROUNDS, 0, None) is pooled
    assert refresh_of_others(40, 40 - LEAST_ROUNDS + 1, None) is left_out
    assert refresh_of_others(40, 20, LEAST_ROUNDS) is pooled
    assert refresh_of_others(40, 20, LEAST_ROUNDS - 1) is left_out
    assert refresh_of_others(40, 20, 0) is Refresh.NOW
    assert refresh_of_others(3, 0, 0) is Refresh.NOW
