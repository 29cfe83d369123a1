"""The connection between `cospan bench peers` and a job: numbers of rounds, answered with their seconds."""

import json
import socket
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Run = Callable[[int], Float[np.ndarray, "d r"]]
"""Runs a number of rounds and returns the basis after them."""


def follow(address: str, run: Run) -> None:
    """Runs the number of rounds in each line until the benchmark closes the connection.

    Args:
        address: HOST:PORT of the benchmark, on this machine.
        run: runs rounds.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection, connection.makefile("rw") as lines:
        for line in lines:
            begun = time.perf_counter()
            basis = run(int(line))
            seconds = time.perf_counter() - begun
            numbers = np.ascontiguousarray(basis, "<f8").tobytes().hex()
            lines.write(f"{json.dumps({'seconds': seconds, 'basis': numbers})}\n")
            lines.flush()
