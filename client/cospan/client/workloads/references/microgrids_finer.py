"""Makes the reference solutions of the microgrids with coarser and finer features that are shipped as package data.

    python -m cospan.client.workloads.references.microgrids_finer [FILE]

Each site is simulated once, and its sums are kept for the finest map, hour by hour: there every hour is a knot of
its own, so A = Σ φ (φ' − φ)ᵀ has blocks of an hour and of the hour after it, and nothing else. Every other map's
sums are those of the finest one, Tᵀ A T; they are solved as in `references.microgrids`.
"""

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.workloads.microgrids import CHARGE, OUTLOOK, hats
from cospan.client.workloads.microgrids_finer import FINEST, INNER, MAPS, REFERENCE_FILE, features_with
from cospan.client.workloads.models.microgrids import HOURS, site_count
from cospan.client.workloads.references.microgrids import BURN_IN_DAYS, transitions
from cospan.client.workloads.references.solutions import pooled_batches, pooled_solution, target_path

SEED = 20_260_407
"""Not that of `references.microgrids`, so that the two can be compared."""
CHAINS = 2000
"""In each batch."""


def finest_products(observations: Float[np.ndarray, "n 5"]) -> Float[np.ndarray, "n p"]:
    """ψ: the `INNER` products of the finest map at the hour of each observation."""
    charge = hats(observations[:, CHARGE], FINEST.charge_knots)
    outlook = hats(observations[:, OUTLOOK], FINEST.outlook_knots)
    return np.asarray((charge[:, :, None] * outlook[:, None, :]).reshape(len(observations), INNER))


def hourly_sums(
    index: int, rng: np.random.Generator, *, burn_in_days: int = BURN_IN_DAYS, **sizes: int
) -> dict[str, Any]:
    """The sums of one batch, by hour: Σ ψψᵀ, Σ ψψ'ᵀ, Σ ψ r; and Σ r and the number of transitions.

    ψ' are the products of the hour after that of ψ; `sizes` are those of `transitions`.
    """
    sums: dict[str, Any] = {name: np.zeros((HOURS, INNER, INNER)) for name in ("now", "next")}
    sums |= {"rewards": np.zeros((HOURS, INNER)), "r": 0.0, "n": 0}
    played = transitions(index, rng, finest_products, burn_in_days=burn_in_days, **sizes)
    for number, (earlier, reward, products) in enumerate(played, max(0, burn_in_days * HOURS - 1)):
        hour = number % HOURS
        sums["now"][hour] += earlier.T @ earlier
        sums["next"][hour] += earlier.T @ products
        sums["rewards"][hour] += earlier.T @ reward
        sums["r"] += float(reward.sum())
        sums["n"] += len(reward)
    return sums


def sums_with(d: int, hourly: dict[str, Any]) -> dict[str, Any]:
    """The sums of `references.microgrids.least_squares` with the map of d features."""
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
    batches = pooled_batches(index, partial(hourly_sums, chains=CHAINS), seed=SEED)
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
    path, found = target_path(REFERENCE_FILE), []
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
