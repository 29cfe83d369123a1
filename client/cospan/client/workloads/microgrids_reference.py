"""Makes the reference solutions of the microgrids that are shipped as package data.

    python -m cospan.client.workloads.microgrids_reference [FILE]

For every site many chains are simulated side by side under the fleet's policy, and the TD(0) fixed point is
solved for by least squares (average-reward LSTD): z = −A⁻¹ b, A = Σ φ (φ' − φ)ᵀ, b = Σ φ (r − J). The chains
come in batches, each a solution of its own; how the batches differ says how uncertain the pooled solution is.
"""

import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.workloads.microgrids import EXPLORATION, FEATURES, REFERENCE_FILE, outlook
from cospan.client.workloads.microgrids_model import (
    HOURS,
    MANY,
    battery_first,
    dispatch,
    hourly_cost,
    load_site,
    site_count,
)
from cospan.core.targets import relative_value_error

SEED = 20_260_301
BATCHES = 8
CHAINS = 500
"""In each batch."""
DAYS = 40
"""Of each chain, after `BURN_IN_DAYS` that bring it to its stationary distribution."""
BURN_IN_DAYS = 10

Hour = tuple[Float[np.ndarray, "n 5"], Float[np.ndarray, " n"]]


def simulate(index: int, chains: int, days: int, rng: np.random.Generator) -> Iterator[Hour]:
    """Hour after hour: the observations of many chains of one site, and the rewards of that hour.

    The same environment and policy as `MicrogridEnv` and `BatteryFirst`, for many chains at once.
    """
    grid, profiles = load_site(index)
    ranks = outlook(profiles)
    level = rng.random(chains) * grid.usable
    for _ in range(days):
        day = rng.integers(len(ranks), size=chains)
        for hour in range(HOURS):
            net_load, grid_up = profiles.net_load[day, hour], profiles.grid_up[day, hour]
            observations = np.column_stack(
                [np.full(chains, float(hour)), level / grid.usable, ranks[day, hour], net_load, grid_up]
            )
            action = np.where(
                rng.random(chains) < EXPLORATION,
                2.0 * rng.random(chains) - 1.0,
                battery_first(grid, net_load, by=MANY),
            )
            flows = dispatch(grid, level, action, net_load, grid_up, by=MANY)
            cost = hourly_cost(grid, flows, profiles.import_cost[day, hour], profiles.export_price[day, hour])
            level = np.clip(level + flows.stored_change, 0.0, grid.usable)
            yield observations, -cost


def least_squares(
    index: int, chains: int, days: int, burn_in_days: int, rng: np.random.Generator
) -> dict[str, Any]:
    """The sums of one batch: A, Σ φ r, Σ φ, Σ φφᵀ, Σ r and the number of transitions."""
    d = FEATURES.dim
    sums: dict[str, Any] = {"A": np.zeros((d, d)), "phi_r": np.zeros(d), "phi": np.zeros(d)}
    sums |= {"phi_phi": np.zeros((d, d)), "r": 0.0, "n": 0}
    before = None
    for number, (observations, rewards) in enumerate(simulate(index, chains, burn_in_days + days, rng)):
        if number < burn_in_days * HOURS - 1:
            continue
        features = FEATURES.batch(observations)
        if before is not None:
            phi, reward = before
            sums["A"] += phi.T @ (features - phi)
            sums["phi_r"] += phi.T @ reward
            sums["phi"] += phi.sum(axis=0)
            sums["phi_phi"] += phi.T @ phi
            sums["r"] += float(reward.sum())
            sums["n"] += len(reward)
        before = features, rewards
    return sums


def solve(sums: dict[str, Any]) -> tuple[float, Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """J, z and the features' covariance from the sums of some batches."""
    n = sums["n"]
    gain = sums["r"] / n
    vector = (sums["phi_r"] - gain * sums["phi"]) / n
    # A feature that no day of the site excites has a zero row; the least-norm solution leaves its weight at zero.
    weights = -np.linalg.lstsq(sums["A"] / n, vector, rcond=1e-9)[0]
    mean = sums["phi"] / n
    return gain, weights, sums["phi_phi"] / n - np.outer(mean, mean)


def pooled_solution(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """The solution of all batches together, and its standard errors from how they differ."""
    pooled = {name: sum(batch[name] for batch in batches) for name in batches[0]}
    gain, weights, covariance = solve(pooled)
    alone = [solve(batch)[:2] for batch in batches]
    spread = np.mean([relative_value_error(each, weights, covariance) for _, each in alone])
    return {
        "gain": gain,
        "weights": weights,
        "covariance": covariance,
        # About their mean K batches spread by (K − 1)/K of a batch's variance; that of the mean is 1/K of it.
        "weights_uncertainty": spread / (len(batches) - 1),
        "gain_uncertainty": float(np.std([each for each, _ in alone], ddof=1) / np.sqrt(len(batches))),
        "transitions": pooled["n"],
    }


def reference_of(index: int) -> dict[str, Any]:
    """The pooled solution of a site, and its standard errors from the batches."""
    seeds = np.random.SeedSequence((SEED, index)).spawn(BATCHES)
    batches = [least_squares(index, CHAINS, DAYS, BURN_IN_DAYS, np.random.default_rng(seed)) for seed in seeds]
    solution = pooled_solution(batches)
    covariance = solution.pop("covariance")
    return {**solution, "covariance_upper": covariance[np.triu_indices(FEATURES.dim)].astype(np.float32)}


def main() -> None:
    """Makes the file, one site after another on every core."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(str(REFERENCE_FILE))
    with multiprocessing.get_context("spawn").Pool() as pool:
        found = []
        for index, reference in enumerate(pool.imap(reference_of, range(site_count()))):
            found.append(reference)
            print(
                f"site {index}: J = {reference['gain']:.4f} ± {reference['gain_uncertainty']:.4f}, "
                f"uncertainty of the value {reference['weights_uncertainty']:.1e}",
                flush=True,
            )
    arrays: dict[str, Any] = {name: np.array([reference[name] for reference in found]) for name in found[0]}
    with path.open("wb") as stream:
        np.savez_compressed(stream, feature_fingerprint=FEATURES.fingerprint, seed=SEED, **arrays)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
