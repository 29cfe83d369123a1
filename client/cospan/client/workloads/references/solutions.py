"""Reference solutions from simulated transitions, and the files of package data that hold a fleet's.

The TD(0) fixed point is solved for by least squares (average-reward LSTD): z = −A⁻¹ b, A = Σ φ (φ' − φ)ᵀ,
b = Σ φ (r − J). Transitions come in batches, each a solution of its own; how the batches differ says how uncertain
the pooled solution is.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.workload import FeatureMap
from cospan.core.exact_solutions import ReferenceSolution, common_subspace, relative_value_error

Transitions = tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"], Float[np.ndarray, "n d"]]
"""φ, rewards and φ' of some transitions, one per row."""


def summed(transitions: Iterable[Transitions], dim: int) -> dict[str, Any]:
    """The sums of one batch: A, Σ φ r, Σ φ, Σ φφᵀ, Σ r and the number of transitions."""
    sums: dict[str, Any] = {"A": np.zeros((dim, dim)), "phi_r": np.zeros(dim), "phi": np.zeros(dim)}
    sums |= {"phi_phi": np.zeros((dim, dim)), "r": 0.0, "n": 0}
    for phi, rewards, after in transitions:
        sums["A"] += phi.T @ (after - phi)
        sums["phi_r"] += phi.T @ rewards
        sums["phi"] += phi.sum(axis=0)
        sums["phi_phi"] += phi.T @ phi
        sums["r"] += float(rewards.sum())
        sums["n"] += len(rewards)
    return sums


def solve(sums: dict[str, Any]) -> tuple[float, Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """J, z and the features' covariance from the sums of some batches."""
    n = sums["n"]
    gain = sums["r"] / n
    vector = (sums["phi_r"] - gain * sums["phi"]) / n
    # A feature that nothing excites has a zero row; the least-norm solution leaves its weight at zero.
    weights = -np.linalg.lstsq(sums["A"] / n, vector, rcond=1e-9)[0]
    mean = sums["phi"] / n
    return gain, weights, sums["phi_phi"] / n - np.outer(mean, mean)


def pooled_solution(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The solution of all batches of a site together, and its standard errors from the batches."""
    pooled = {name: sum(batch[name] for batch in batches) for name in batches[0]}
    gain, weights, covariance = solve(pooled)
    alone = [solve(batch)[:2] for batch in batches]
    spread = np.mean([relative_value_error(each, weights, covariance) for _, each in alone])
    count = len(batches)
    return {
        "gain": gain,
        "weights": weights,
        "covariance_upper": covariance[np.triu_indices(len(weights))].astype(np.float32),
        # About their mean K batches spread by (K − 1)/K of a batch's variance; that of the mean is 1/K of it.
        "weights_uncertainty": spread / (count - 1),
        "gain_uncertainty": float(np.std([each for each, _ in alone], ddof=1) / np.sqrt(count)),
        "transitions": pooled["n"],
    }


def pooled_batches(
    index: int, batch: Callable[[int, np.random.Generator], dict[str, Any]], *, seed: int, batches: int = 8
) -> list[dict[str, Any]]:
    """The sums of a site's batches, each from a generator of its own: `batch` takes the index and the generator."""
    seeds = np.random.SeedSequence((seed, index)).spawn(batches)
    return [batch(index, np.random.default_rng(each)) for each in seeds]


def target_path(shipped: Traversable) -> Path:
    """The file that a program writes: its first argument, or the shipped one."""
    return Path(sys.argv[1]) if len(sys.argv) > 1 else Path(str(shipped))


def write_references(
    shipped: Traversable, solutions: Iterable[dict[str, Any]], features: FeatureMap, seed: int
) -> None:
    """Writes the pooled solutions of all sites to `target_path`, and prints a line for each."""
    path, found = target_path(shipped), []
    for index, solution in enumerate(solutions):
        found.append(solution)
        print(
            f"site {index}: J = {solution['gain']:.5f} ± {solution['gain_uncertainty']:.5f}, "
            f"uncertainty of the value {solution['weights_uncertainty']:.1e}",
            flush=True,
        )
    arrays: dict[str, Any] = {name: np.array([solution[name] for solution in found]) for name in found[0]}
    with path.open("wb") as stream:
        np.savez_compressed(stream, feature_fingerprint=features.fingerprint, seed=seed, **arrays)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def read_references(path: Traversable, features: FeatureMap, maker: str) -> tuple[ReferenceSolution, ...]:
    """The solutions of all sites; `maker` is the module that makes the file.

    Raises:
        RuntimeError: they are of other features than these.
    """
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        values = {name: archive[name] for name in archive.files}
    if str(values["feature_fingerprint"]) != features.fingerprint:
        raise RuntimeError(
            f"the solutions in {path.name} are of features {values['feature_fingerprint']}, not of "
            f"{features.fingerprint}; make them again with `python -m {maker}`"
        )
    upper = np.triu_indices(features.dim)
    covariances = np.zeros((len(values["gain"]), features.dim, features.dim))
    covariances[:, upper[0], upper[1]] = values["covariance_upper"]
    covariances[:, upper[1], upper[0]] = values["covariance_upper"]
    return tuple(
        ReferenceSolution(
            gain=float(values["gain"][index]),
            weights=values["weights"][index],
            covariance=covariances[index],
            weights_uncertainty=float(values["weights_uncertainty"][index]),
            gain_uncertainty=float(values["gain_uncertainty"][index]),
        )
        for index in range(len(values["gain"]))
    )


def shared_basis(references: Sequence[ReferenceSolution], rank: int) -> Float[np.ndarray, "d r"]:
    """The best r-dimensional subspace of the weights of some sites."""
    return common_subspace(np.stack([reference.weights for reference in references]), rank)[0]
