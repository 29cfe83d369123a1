"""Random 64-bit words: of the operating system for what is sent, of a seed for tests and experiments."""

import secrets
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt64


@runtime_checkable
class WordSource(Protocol):
    """Where noise comes from. Who can predict the words can subtract the noise."""

    def words(self, count: int) -> UInt64[np.ndarray, " count"]:
        """The next words: uniform, and independent of all others."""


class SystemWords:
    """Words of the operating system's generator for keys (on Linux ChaCha20): the source of what is sent."""

    def words(self, count: int) -> UInt64[np.ndarray, " count"]:
        """Words that cannot be predicted."""
        return np.frombuffer(secrets.token_bytes(8 * count), dtype="<u8").astype(np.uint64)


class SeededWords:
    """Words that follow from a seed, for tests and experiments in one process. They protect nothing."""

    def __init__(self, seed: int | np.random.SeedSequence) -> None:
        """The same seed gives the same words."""
        self._generator = np.random.PCG64(seed)

    def words(self, count: int) -> UInt64[np.ndarray, " count"]:
        """The next words of the seed."""
        return self._generator.random_raw(count)
