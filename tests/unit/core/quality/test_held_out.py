"""Errors on held-out data: without the bias of noise, and the same for one agent and for many."""

import numpy as np
import pytest
from jaxtyping import Float

from cospan.core.learning.least_squares import TransitionSums
from cospan.core.quality.fleet_errors import FleetErrors, SiteErrors, site_of, verdict
from cospan.core.quality.held_out import (
    FEWEST_BLOCKS,
    MOST_BLOCKS,
    Answers,
    HeldOut,
    HeldOutErrors,
    held_out_errors,
    next_rounds,
)

D, L, NOISE = 6, 20, 1.0
TRUE = np.array([1.0, -1.0, 0.5, 0.0, 2.0, -0.5])
Walk = tuple[Float[np.ndarray, "L1 d"], Float[np.ndarray, " L"]]


def walks(rounds: int, seed: int, deviation: float = NOISE) -> list[Walk]:
    """Independent states whose values are φᵀ TRUE, up to noise of the rewards; mean reward 3."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(rounds):
        features = rng.standard_normal((L + 1, D)) * 0.3
        noise = deviation * rng.standard_normal(L)
        found.append((features, 3.0 + (features[:-1] - features[1:]) @ TRUE + noise))
    return found


def answers(joint: Float[np.ndarray, " d"], alone: Float[np.ndarray, " d"]) -> Answers:
    return Answers(joint, alone, np.stack([alone, 3.0 * alone]), 3.0, 100 * L, 100)


def summed(played: list[Walk]) -> TransitionSums:
    sums = TransitionSums.of_features(D)
    for features, rewards in played:
        sums = sums.updated(features, features[:-1], rewards, 0.0)
    return sums


def judged(
    joint: Float[np.ndarray, " d"], alone: Float[np.ndarray, " d"], seed: int, deviation: float = NOISE
) -> HeldOutErrors:
    played = walks(96, seed, deviation)
    held = HeldOut.begun_with(answers(joint, alone))
    for walk in played:
        held = held.updated(*walk)
    return held_out_errors([held], summed(played), 0.09 * np.eye(D), TRUE)


def test_noise_that_is_larger_than_the_error_does_not_count_as_error() -> None:
    """The plain square of the residual would come to 0.1 on average."""
    joint = np.array([judged(TRUE + 0.2, TRUE, seed, 4.0).joint for seed in range(40)])
    assert joint.mean() == pytest.approx(D * 0.04 / (TRUE @ TRUE), abs=0.025)


def test_the_mean_over_many_runs_is_the_error_itself() -> None:
    near, far = TRUE + 0.2, TRUE + np.array([0.5, 0.0, 0.0, -0.5, 0.0, 0.0])
    found = [judged(near, far, seed) for seed in range(40)]
    unit = TRUE @ TRUE
    exact = D * 0.04 / unit
    joint = np.array([each.joint for each in found])
    assert joint.mean() == pytest.approx(exact, abs=3.0 * joint.std() / np.sqrt(40))
    assert 0.4 * joint.std() < np.mean([each.joint_error for each in found]) < 2.5 * joint.std()
    advantage = np.array([each.advantage for each in found])
    assert advantage.mean() == pytest.approx(0.5 / unit - exact, abs=3.0 * advantage.std() / np.sqrt(40))
    assert np.mean([each.mean_only for each in found]) == pytest.approx(1.0, abs=0.05)
    # Both step sizes are tried; the second answer is three times as long.
    assert np.mean([each.td_alone for each in found]) == pytest.approx(0.5 / unit, abs=0.02)


def test_a_true_answer_is_better_beyond_chance_and_equal_ones_are_not() -> None:
    site = site_of(judged(TRUE, TRUE + 0.5, 1))
    assert site is not None
    assert (site.verdict, site.ratio) == (1, pytest.approx(max(0.0, site.joint) / site.lstd_alone))
    worse = site_of(judged(TRUE + 0.5, TRUE, 1))
    assert worse is not None
    assert worse.verdict == -1
    chance = [site_of(judged(TRUE + 0.2, TRUE - 0.2, seed)) for seed in range(40)]
    told = [site.verdict for site in chance if site is not None]
    assert np.count_nonzero(told) <= 6, "at 95 %, two of forty are expected"


def test_many_agents_have_the_errors_that_each_has_alone() -> None:
    played = [walks(40, seed) for seed in (1, 2)]
    ours = [answers(TRUE + 0.1 * k, TRUE - 0.3) for k in (1, 2)]
    alone = []
    for own, answer in zip(played, ours, strict=True):
        held = HeldOut.begun_with(answer)
        for walk in own:
            held = held.updated(*walk)
        alone.append(held)
    both = HeldOut.begun_with(
        Answers(
            *(np.stack([getattr(each, name) for each in ours]) for name in ("joint", "lstd_alone", "td_alone")),
            np.array([3.0, 3.0]),
            100 * L,
            100,
        )
    )
    for rows in zip(*played, strict=True):
        both = both.updated(np.stack([each[0] for each in rows]), np.stack([each[1] for each in rows]))
    assert (both.blocks, both.steps) == (alone[0].blocks, 40 * L)
    sums = TransitionSums.of_features(D, (2,))
    for rows in zip(*played, strict=True):
        features = np.stack([each[0] for each in rows])
        sums = sums.updated(features, features[:, :-1], np.stack([each[1] for each in rows]), 0.0)
    found = held_out_errors([both], sums, np.stack([np.eye(D)] * 2), np.stack([TRUE] * 2))
    for place, held in enumerate(alone):
        own_errors = held_out_errors([held], summed(played[place]), np.eye(D), TRUE)
        np.testing.assert_allclose(found.joint[place], own_errors.joint, rtol=1e-9)
        np.testing.assert_allclose(found.of_agent(place).advantage_error, own_errors.advantage_error, rtol=1e-9)
        np.testing.assert_allclose(both.of_agents(place).moments, held.moments, rtol=1e-12)


def test_blocks_are_bounded_and_hold_all_that_was_seen() -> None:
    held = HeldOut.begun_with(answers(TRUE, TRUE))
    played = walks(301, 3)
    for count, walk in enumerate(played, start=1):
        held = held.updated(*walk)
        assert held.blocks < MOST_BLOCKS + 1
        assert held.blocks * held.rounds + held.open_rounds == count
    deltas = [rewards - 3.0 + (features[1:] - features[:-1]) @ TRUE for features, rewards in played]
    whole = sum(features[:-1].T @ delta for (features, _), delta in zip(played, deltas, strict=True))
    np.testing.assert_allclose(held.moments.sum(axis=0), whole, rtol=1e-9, atol=1e-9)


def test_answers_without_enough_held_out_leave_it_to_those_before() -> None:
    played = walks(80, 4)
    old, new = HeldOut.begun_with(answers(TRUE, TRUE)), HeldOut.begun_with(answers(TRUE + 1.0, TRUE))
    for number, walk in enumerate(played):
        old = old.updated(*walk)
        new = new.updated(*walk) if number >= 80 - FEWEST_BLOCKS + 1 else new
    found = held_out_errors([old, new], summed(played), np.eye(D), TRUE)
    assert found.held_out_steps == 80 * L
    assert np.isnan(held_out_errors([new], summed(played), np.eye(D), TRUE).joint)
    assert site_of(HeldOutErrors.unknown(())) is None


@pytest.mark.parametrize(
    ("total", "rounds"), [(300, [5, 10, 19, 38, 75, 150]), (30, [8, 15]), (0, [4, 8, 16, 32]), (1, []), (7, [])]
)
def test_answers_are_kept_when_what_is_learnt_has_doubled(total: int, rounds: list[int]) -> None:
    found, last = [], 0
    while len(found) < max(1, len(rounds)) and (due := next_rounds(last, total)) < (total or 64):
        found.append(due)
        last = due
    assert found == rounds


def test_a_fleet_is_told_apart_where_its_sites_are_not() -> None:
    sites = [SiteErrors(0.1, 0.05, 0.2, 1.0, 0.1, 0.06, 10, 0.5)] * 16
    assert sites[0].verdict == 0
    assert sites[0].ratio is None
    fleet = FleetErrors.of(sites)
    assert fleet is not None
    assert (fleet.verdict, fleet.sites_better, fleet.ratio) == (1, 0, pytest.approx(0.5))
    assert fleet.advantage_error == pytest.approx(0.015)
    assert FleetErrors.of([]) is None
    assert [verdict(value, 1.0, 9) for value in (2.2, 2.3, -2.3, np.nan)] == [0, 1, -1, 0]
