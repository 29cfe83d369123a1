"""The line between `cospan bench peers` and a job: it says how many rounds, the job says how long they took."""

import json
import socket
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Play = Callable[[int], Float[np.ndarray, "d r"]]
"""Plays so many rounds, and gives the basis after them."""


def follow(address: str, play: Play) -> None:
    """Plays as many rounds as each line asks for, until the benchmark hangs up.

    Args:
        address: HOST:PORT of the benchmark, on this machine.
        play: plays rounds.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection, connection.makefile("rw") as lines:
        for line in lines:
            begun = time.perf_counter()
            basis = play(int(line))
            seconds = time.perf_counter() - begun
            numbers = np.ascontiguousarray(basis, "<f8").tobytes().hex()
            lines.write(f"{json.dumps({'seconds': seconds, 'basis': numbers})}\n")
            lines.flush()
