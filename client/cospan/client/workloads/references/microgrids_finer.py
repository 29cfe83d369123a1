"""Makes the reference solutions of the microgrids with coarser and finer features that are shipped as package data.

    python -m cospan.client.workloads.references.microgrids_finer [FILE]

Each site is simulated once, and its sums are kept for the finest map, hour by hour: there every hour is a knot of
its own, so A = Σ φ (φ' − φ)ᵀ has blocks of an hour and of the hour after it, and nothing else. Every other map's
sums are those of the finest one, Tᵀ A T; they are solved as those of `microgrids_reference`.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.workloads.microgrids import CHARGE, OUTLOOK
from cospan.client.workloads.microgrids_finer import FINEST, INNER, MAPS, REFERENCE_FILE, features_with, hats
from cospan.client.workloads.models.microgrids import HOURS, site_count
from cospan.client.workloads.references.microgrids import simulate
from cospan.client.workloads.references.solutions import pooled_solution

SEED = 20_260_407
"""Not that of `microgrids_reference`: what both have can be compared."""
BATCHES = 8
CHAINS = 2000
"""In each batch."""
DAYS = 40
BURN_IN_DAYS = 10


def hourly_sums(index: int, chains: int, days: int, burn_in_days: int, rng: np.random.Generator) -> dict[str, Any]:
    """The sums of one batch, by hour: Σ ψψᵀ, Σ ψψ'ᵀ, Σ ψ r; and Σ r and the number of transitions.

    ψ are the `INNER` products of the finest map at that hour, ψ' those of the hour after it.
    """
    sums: dict[str, Any] = {name: np.zeros((HOURS, INNER, INNER)) for name in ("now", "next")}
    sums |= {"rewards": np.zeros((HOURS, INNER)), "r": 0.0, "n": 0}
    before = None
    for number, (observations, rewards) in enumerate(simulate(index, chains, burn_in_days + days, rng)):
        if number < burn_in_days * HOURS - 1:
            continue
        charge = hats(observations[:, CHARGE], FINEST.charge_knots)
        outlook = hats(observations[:, OUTLOOK], FINEST.outlook_knots)
        products = (charge[:, :, None] * outlook[:, None, :]).reshape(chains, INNER)
        if before is not None:
            earlier, reward = before
            hour = (number - 1) % HOURS
            sums["now"][hour] += earlier.T @ earlier
            sums["next"][hour] += earlier.T @ products
            sums["rewards"][hour] += earlier.T @ reward
            sums["r"] += float(reward.sum())
            sums["n"] += chains
        before = products, rewards
    return sums


def sums_with(d: int, hourly: dict[str, Any]) -> dict[str, Any]:
    """The sums of `microgrids_reference.least_squares` with the map of d features."""
    size = HOURS * INNER
    now, after = np.zeros((size, size)), np.zeros((size, size))
    for hour in range(HOURS):
        rows = slice(hour * INNER, (hour + 1) * INNER)
        start = (hour + 1) % HOURS * INNER
        now[rows, rows] = hourly["now"][hour]
        after[rows, start : start + INNER] = hourly["next"][hour]
    into = MAPS[d].among(FINEST)
    return {
        "A": into.T @ (after - now)[1:, 1:] @ into,
        "phi_r": into.T @ hourly["rewards"].reshape(-1)[1:],
        "phi": into.T @ now.sum(axis=1)[1:],
        "phi_phi": into.T @ now[1:, 1:] @ into,
        "r": hourly["r"],
        "n": hourly["n"],
    }


def reference_of(index: int) -> dict[str, Any]:
    """The solutions of a site with every map, and their standard errors."""
    seeds = np.random.SeedSequence((SEED, index)).spawn(BATCHES)
    batches = [hourly_sums(index, CHAINS, DAYS, BURN_IN_DAYS, np.random.default_rng(seed)) for seed in seeds]
    found: dict[str, Any] = {"hourly_upper": hourly_upper(batches)}
    for d in MAPS:
        solution = pooled_solution([sums_with(d, batch) for batch in batches])
        found[f"weights_{d}"] = solution["weights"].astype(np.float32)
        found[f"weights_uncertainty_{d}"] = solution["weights_uncertainty"]
        found |= {name: solution[name] for name in ("gain", "gain_uncertainty", "transitions")}
    return found


def hourly_upper(batches: list[dict[str, Any]]) -> Float[np.ndarray, "24 u"]:
    """E[ψψᵀ] of each hour, its upper triangle row by row; float32."""
    rows, columns = np.triu_indices(INNER)
    moments = sum(batch["now"] for batch in batches) / sum(batch["n"] for batch in batches)
    return np.asarray(moments[:, rows, columns].astype(np.float32))


def main() -> None:
    """Makes the file, one site after another."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(str(REFERENCE_FILE))
    found = []
    for index in range(site_count()):
        found.append(reference_of(index))
        errors = ", ".join(f"{found[-1][f'weights_uncertainty_{d}']:.1e}" for d in MAPS)
        print(
            f"site {index}: J = {found[-1]['gain']:.4f} ± {found[-1]['gain_uncertainty']:.4f}, "
            f"uncertainty of the values {errors}",
            flush=True,
        )
    arrays: dict[str, Any] = {name: np.array([reference[name] for reference in found]) for name in found[0]}
    fingerprints: dict[str, Any] = {f"fingerprint_{d}": features_with(d).fingerprint for d in MAPS}
    with path.open("wb") as stream:
        np.savez_compressed(stream, seed=SEED, **fingerprints, **arrays)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
