"""Whatever units its rewards and features are in, an agent learns the same, and so does the fleet.

Each agent has units of its own: rewards become c r + b, features f φ. Then its values are c times what they were,
its gain is c times that plus b, and the shared subspace is the same.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cospan.core.aggregation.basis_update import initial_head_covariance, next_basis
from cospan.core.learning.learner import contribution_of, learn_round
from cospan.core.learning.learner_state import LearnerState, Trajectory
from cospan.core.learning.schedules import AveragedIterate
from cospan.core.linalg.subspace import principal_angle_sine, random_basis
from cospan.core.method import Aggregation, HeadUpdate, Method, compact, full_history, practical
from cospan.experiments.methods.compared_methods import JointFleet

D, R, L, AGENTS, ROUNDS, STATES = 7, 2, 15, 3, 5, 11
TOLERANCE = 1e-9
# No shrinking: a seed has no simpler one, and it would take minutes.
PRACTICAL, COMPACT, FULL = practical(L), compact(L), full_history(L)
STEPPING = replace(COMPACT, head_update=HeadUpdate.EVERY_STEP)
METHODS = {
    "practical": PRACTICAL,
    "compact": COMPACT,
    "full history": FULL,
    "full history with a warm-up": replace(FULL, warm_up_rounds=3),
    "compact with a warm-up": replace(COMPACT, warm_up_rounds=2),
    "full history with traces": replace(FULL, trace_decay=0.5, forgetting=2.0),
    "full history, a ball": replace(FULL, head_radius=0.5),
    "compact, a ball": replace(COMPACT, head_radius=0.5),
    "every step": STEPPING,
    "every step, explicit": replace(STEPPING, implicit_head_step=False, head_step=0.1, head_radius=2.0),
    "end of round": replace(COMPACT, head_update=HeadUpdate.END_OF_ROUND),
    "nothing scaled at the coordinator": replace(COMPACT, row_scaled=False, preconditioned=False, basis_step=0.01),
    "clipped": replace(PRACTICAL, aggregation=Aggregation.CLIPPED),
    "full history, clipped": replace(FULL, aggregation=Aggregation.CLIPPED),
    "clipped at a length": replace(COMPACT, aggregation=Aggregation.CLIPPED, clip_norm=0.02),
    "trimmed": replace(PRACTICAL, aggregation=Aggregation.TRIMMED),
    "full history, trimmed": replace(FULL, aggregation=Aggregation.TRIMMED),
    "geometric median": replace(COMPACT, aggregation=Aggregation.GEOMETRIC_MEDIAN),
}


@dataclass(frozen=True)
class UnitChange:
    """c, f, and b in standard deviations of the rewards, of one agent."""

    factor: float
    features: float
    constant: float


def powers(least: float, most: float) -> st.SearchStrategy[float]:
    return st.floats(least, most).map(lambda power: 10.0**power)


def changes_up_to(power: float) -> st.SearchStrategy[list[UnitChange]]:
    """With constants up to 10^power σ; float64 holds rewards of 1e6 σ to 1e-10 σ only."""
    constant = st.one_of(st.just(0.0), powers(-3, power), powers(-3, power).map(lambda value: -value))
    change = st.builds(UnitChange, factor=powers(-9, 12), features=powers(-12, 0), constant=constant)
    return st.lists(change, min_size=AGENTS, max_size=AGENTS)


CHANGES, LESSER_CHANGES = changes_up_to(6), changes_up_to(5)


def chains(seed: int) -> list[Trajectory]:
    """What the agents see in each round: few states with random features, and rewards of two kinds."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((STATES, D))
    features /= np.linalg.norm(features, axis=1).max()
    steps = rng.dirichlet(np.full(STATES, 0.5), size=(AGENTS, STATES)).cumsum(axis=2)
    rewards = rng.standard_normal((AGENTS, 2)) @ rng.standard_normal((2, STATES))
    places = np.zeros(AGENTS, dtype=np.int64)
    rounds = []
    for _ in range(ROUNDS):
        path = [places]
        for _ in range(L):
            draws = rng.random(AGENTS)
            found = [np.searchsorted(steps[k, path[-1][k]], draws[k]) for k in range(AGENTS)]
            path.append(np.minimum(found, STATES - 1))
        places, visited = path[-1], np.stack(path, axis=1)
        rounds.append(Trajectory(features[visited], np.take_along_axis(rewards, visited[:, :-1], axis=1)))
    return rounds


def sigmas_of(rounds: list[Trajectory]) -> np.ndarray:
    return np.concatenate([played.rewards for played in rounds], axis=1).std(axis=1)


def in_units(rounds: list[Trajectory], changes: list[UnitChange]) -> list[Trajectory]:
    factors, features, constants = columns(rounds, changes)
    return [
        Trajectory(
            played.features * features[:, None, None], played.rewards * factors[:, None] + constants[:, None]
        )
        for played in rounds
    ]


def columns(rounds: list[Trajectory], changes: list[UnitChange]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    factors = np.array([change.factor for change in changes])
    constants = np.array([change.constant for change in changes]) * factors * sigmas_of(rounds)
    return factors, np.array([change.features for change in changes]), constants


@dataclass(frozen=True)
class Learnt:
    weights: np.ndarray
    gains: np.ndarray
    basis: np.ndarray


def by_single_agents(method: Method, rounds: list[Trajectory]) -> Learnt:
    fleet = JointFleet.initial(method, random_basis(D, R, np.random.default_rng(1)), AGENTS)
    for played in rounds:
        fleet = fleet.learning_from(
            [Trajectory(*pair) for pair in zip(played.features, played.rewards, strict=True)]
        )
    gains = np.array([state.gain_estimate for state in fleet.states])
    return Learnt(fleet.weights[0], gains, fleet.basis)


def by_a_group(method: Method, rounds: list[Trajectory]) -> Learnt:
    basis, memory = random_basis(D, R, np.random.default_rng(1)), None
    covariance = initial_head_covariance(method, R)
    state, weights = LearnerState.initial(R, AGENTS), AveragedIterate(np.zeros((AGENTS, D)))
    for number, played in enumerate(rounds):
        outcome = learn_round(state, basis, played, method, number, head_covariance=covariance)
        state, weights = outcome.state, weights.updated(outcome.weights)
        sent = [contribution_of(outcome, method, number)]
        move = next_basis(basis, sent, method, number, memory, head_covariance=covariance)
        basis, memory, covariance = move.basis, move.step_memory, move.head_covariance
    return Learnt(weights.mean, state.gain_estimate, basis)


def check_same(before: Learnt, after: Learnt, rounds: list[Trajectory], changes: list[UnitChange]) -> None:
    factors, features, constants = columns(rounds, changes)
    weights = after.weights * (features / factors)[:, None]
    distances = np.linalg.norm(weights - before.weights, axis=1)
    assert (distances <= TOLERANCE * np.linalg.norm(before.weights, axis=1)).all()
    gains = factors * before.gains + constants
    scales = np.maximum(np.abs(gains), factors * sigmas_of(rounds))
    assert (np.abs(after.gains - gains) <= TOLERANCE * scales).all()
    assert principal_angle_sine(before.basis, after.basis) <= TOLERANCE


PRESET_NAMES = ("practical", "compact", "full history")
OPTIONS = [name for name in METHODS if name not in PRESET_NAMES]
SEEDS = st.integers(0, 2**32 - 1)


def check_fleet(method: Method, seed: int, changes: list[UnitChange]) -> None:
    rounds = chains(seed)
    before, after = by_single_agents(method, rounds), by_single_agents(method, in_units(rounds, changes))
    assert np.abs(before.weights).max() > 0.0
    check_same(before, after, rounds, changes)


def check_group(method: Method, seed: int, changes: list[UnitChange]) -> None:
    rounds = chains(seed)
    before, after = by_a_group(method, rounds), by_a_group(method, in_units(rounds, changes))
    check_same(before, after, rounds, changes)


@pytest.mark.parametrize("name", PRESET_NAMES)
@settings(max_examples=10, phases=[Phase.generate])
@given(seed=SEEDS, changes=CHANGES)
def test_a_fleet_is_equivariant_under_each_agents_units(name: str, seed: int, changes: list[UnitChange]) -> None:
    check_fleet(METHODS[name], seed, changes)


@pytest.mark.parametrize("name", OPTIONS)
@settings(max_examples=2, phases=[Phase.generate])
@given(seed=SEEDS, changes=LESSER_CHANGES)
def test_so_it_is_with_other_options(name: str, seed: int, changes: list[UnitChange]) -> None:
    check_fleet(METHODS[name], seed, changes)


@pytest.mark.parametrize("name", PRESET_NAMES)
@settings(max_examples=5, phases=[Phase.generate])
@given(seed=SEEDS, changes=CHANGES)
def test_a_group_is_equivariant_under_each_agents_units(name: str, seed: int, changes: list[UnitChange]) -> None:
    check_group(METHODS[name], seed, changes)


@pytest.mark.parametrize("name", [name for name in OPTIONS if not METHODS[name].warm_up_rounds])
@settings(max_examples=2, phases=[Phase.generate])
@given(seed=SEEDS, changes=LESSER_CHANGES)
def test_so_is_a_group_with_other_options(name: str, seed: int, changes: list[UnitChange]) -> None:
    check_group(METHODS[name], seed, changes)
