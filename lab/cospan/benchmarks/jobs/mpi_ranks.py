"""One MPI rank an agent, an allreduce, and QR.

Started with `mpiexec -n AGENTS python -m cospan.benchmarks.jobs.mpi_ranks ADDRESS D R`.

There is no server: every rank takes the same step from the same sum.
"""

import sys
import time

import numpy as np
from jaxtyping import Float
from mpi4py import MPI

from cospan.benchmarks.jobs.gradient_exchange import first_basis, gradient_of, next_basis
from cospan.benchmarks.jobs.pace import follow

_NAP_SECONDS = 0.005


class Rank:
    """One agent."""

    def __init__(self, feature_dim: int, rank: int) -> None:
        self._all = MPI.COMM_WORLD
        self.number: int = self._all.Get_rank()
        self._gradient = gradient_of(self.number, feature_dim, rank)
        self._total = np.empty_like(self._gradient)
        self._basis = first_basis(feature_dim, rank)

    def run(self, rounds: int) -> Float[np.ndarray, "d r"]:
        """Rank 0: runs rounds together with the other ranks."""
        self._broadcast(rounds)
        return self._run(rounds)

    def take_part(self) -> None:
        """Other ranks: run the rounds of rank 0."""
        while rounds := self._broadcast(0):
            self._run(rounds)

    def end(self) -> None:
        """Rank 0: no more rounds."""
        self._broadcast(0)

    def _broadcast(self, rounds: int) -> int:
        """MPI waits by spinning; between blocks, when the other side is measured, the ranks sleep instead."""
        number = np.array([rounds], np.int64)
        request = self._all.Ibcast(number, root=0)
        while not request.Test():
            time.sleep(_NAP_SECONDS)
        return int(number[0])

    def _run(self, rounds: int) -> Float[np.ndarray, "d r"]:
        for _ in range(rounds):
            self._all.Allreduce(self._gradient, self._total)
            self._basis = next_basis(self._basis, self._total, self._all.Get_size())
        return self._basis


def main(address: str, feature_dim: int, rank: int) -> None:
    """Runs rounds until the benchmark closes the connection."""
    here = Rank(feature_dim, rank)
    if here.number == 0:
        follow(address, here.run)
        here.end()
    else:
        here.take_part()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:4]))
