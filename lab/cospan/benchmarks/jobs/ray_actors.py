"""A parameter server and its workers as Ray actors.

Started with `python -m cospan.benchmarks.jobs.ray_actors ADDRESS AGENTS D R FOLDER WATCH`.

The pattern of Ray's own synchronous example: gradients go from actor to actor as object references, the next round
is submitted without waiting for the last one, and only what a block ends with is fetched. With WATCH = 1 the driver
fetches the basis of each round before the next, as needed to store it or to decide whether to continue.
"""

import sys
from typing import Any

import numpy as np
import ray
from jaxtyping import Float

from cospan.benchmarks.jobs.gradient_exchange import first_basis, gradient_of, next_basis
from cospan.benchmarks.jobs.pace import follow


class ParameterServer:
    """Holds the basis."""

    def __init__(self, feature_dim: int, rank: int) -> None:
        self._basis = first_basis(feature_dim, rank)

    def basis(self) -> Float[np.ndarray, "d r"]:
        """The one that is held."""
        return self._basis

    def apply(self, *gradients: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "d r"]:
        """The next one, once the gradients of all are there."""
        self._basis = next_basis(self._basis, np.sum(gradients, axis=0), len(gradients))
        return self._basis


class Worker:
    """An agent."""

    def __init__(self, number: int, feature_dim: int, rank: int) -> None:
        self._gradient = gradient_of(number, feature_dim, rank)

    def gradient(self, _basis: Float[np.ndarray, "d r"]) -> Float[np.ndarray, "d r"]:
        """At a basis, which has to have come for it."""
        return self._gradient


def main(address: str, agents: int, feature_dim: int, rank: int, folder: str, *, watch: bool) -> None:
    """Starts Ray on this machine and runs rounds until the benchmark closes the connection."""
    ray.init(
        num_cpus=agents + 1,  # actors that wait need no core of their own
        include_dashboard=False,
        object_store_memory=1 << 28,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
    )
    remote: Any = ray.remote(num_cpus=1)
    server = remote(ParameterServer).remote(feature_dim, rank)
    worker_class = remote(Worker)
    workers = [worker_class.remote(number, feature_dim, rank) for number in range(agents)]

    def run(rounds: int) -> Float[np.ndarray, "d r"]:
        basis = server.basis.remote()
        for _ in range(rounds):
            basis = server.apply.remote(*(worker.gradient.remote(basis) for worker in workers))
            if watch:
                ray.get(basis)
        return np.asarray(ray.get(basis))

    follow(address, run)
    ray.shutdown()


if __name__ == "__main__":
    _agents, _d, _r = map(int, sys.argv[2:5])
    main(sys.argv[1], _agents, _d, _r, sys.argv[5], watch=sys.argv[6] == "1")
