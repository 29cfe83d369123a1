"""How far a change of units changes what a fleet learns: the tables of docs/how-it-works.md.

python docs/scripts/units.py [WORKLOAD] [ROUNDS]
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cospan.client import load_workload
from cospan.client.environment.rollout import source_of
from cospan.client.environment.workload_loader import make_site
from cospan.core.learning.learner_state import Trajectory
from cospan.core.linalg.subspace import principal_angle_sine, random_basis
from cospan.core.method import PRESETS
from cospan.experiments.methods.compared_methods import JointFleet

AGENTS, SEED = 4, 0
PRESET_NAMES = ("practical", "compact", "paper")
FACTORS = (1e-9, 1e-6, 1e-3, 10.0, 1e3, 1e6, 1e9, 1e12)
FEATURE_FACTORS = (1e-3, 1e-6, 1e-9, 1e-12)
CONSTANTS = (1.0, 1e3, 1e5, 1e6, 1e7, 1e9)


@dataclass(frozen=True, slots=True)
class Change:
    """Rewards become `factor` · reward + `constant` · σ, features `features` · φ, of agents by turns."""

    factor: float = 1.0
    constant: float = 0.0
    features: float = 1.0

    def of_agent(self, number: int, sigma: float) -> tuple[float, float, float]:
        """Every second agent keeps its units: a fleet need not share one."""
        return (self.factor, self.constant * sigma, self.features) if number % 2 == 0 else (1.0, 0.0, 1.0)


def trajectories(workload: str, rounds: int) -> list[list[Trajectory]]:
    """The transitions of each agent in each round."""
    made = load_workload(workload)
    chains = [
        source_of(make_site(made, index, SEED), name=f"site-{index}", index=index, seed=SEED)
        for index in range(AGENTS)
    ]
    return [[chain.advance(made.steps_per_round) for chain in chains] for _ in range(rounds)]


def learnt(preset: str, rank: int, played: Sequence[Sequence[Trajectory]], change: Change) -> JointFleet:
    """The fleet after all rounds, its data in other units."""
    steps, dim = len(played[0][0].rewards), played[0][0].features.shape[1]
    sigmas = [float(np.std(np.concatenate([row[k].rewards for row in played]))) for k in range(AGENTS)]
    basis = random_basis(dim, rank, np.random.default_rng(SEED))
    fleet = JointFleet.initial(PRESETS[preset](steps), basis, AGENTS)
    for row in played:
        changed = []
        for number, trajectory in enumerate(row):
            factor, constant, features = change.of_agent(number, sigmas[number])
            changed.append(Trajectory(features * trajectory.features, factor * trajectory.rewards + constant))
        fleet = fleet.learning_from(changed)
    return fleet


def difference(one: JointFleet, other: JointFleet, change: Change) -> float:
    """The largest relative difference of values and gains, in one unit; or the sine of the angle, if larger."""
    worst = principal_angle_sine(one.basis, other.basis)
    for number, (before, after) in enumerate(zip(one.states, other.states, strict=True)):
        sigma = float(np.sqrt(before.rewards.variance))
        factor, constant, features = change.of_agent(number, sigma)
        weights = other.weights[0, number] * features / factor
        own = one.weights[0, number]
        gain = factor * before.gain_estimate + constant
        scale = max(abs(gain), factor * sigma)
        worst = max(worst, float(np.linalg.norm(weights - own) / np.linalg.norm(own)))
        worst = max(worst, abs(after.gain_estimate - gain) / scale)
    return worst


def table(title: str, rows: Iterable[tuple[str, Change]], rank: int, played: list[list[Trajectory]]) -> None:
    """Prints a Markdown table."""
    print(f"| {title} | {' | '.join(PRESET_NAMES)} |\n|---|{'---|' * len(PRESET_NAMES)}")
    plain = {preset: learnt(preset, rank, played, Change()) for preset in PRESET_NAMES}
    for name, change in rows:
        found = [difference(plain[preset], learnt(preset, rank, played, change), change) for preset in PRESET_NAMES]
        print(f"| {name} | {' | '.join(f'{value:.0e}' for value in found)} |")
    print()


def main(workload: str = "synthetic", rounds: str = "60") -> None:
    """Prints the tables."""
    played, rank = trajectories(workload, int(rounds)), load_workload(workload).rank
    table("rewards × c", ((f"{each:g}", Change(factor=each)) for each in FACTORS), rank, played)
    table("features × c", ((f"{each:g}", Change(features=each)) for each in FEATURE_FACTORS), rank, played)
    table("rewards + c σ", ((f"{each:g}", Change(constant=each)) for each in CONSTANTS), rank, played)


if __name__ == "__main__":
    np.seterr(over="ignore", invalid="ignore")
    main(*sys.argv[1:])
