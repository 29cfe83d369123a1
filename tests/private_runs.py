"""What tests of differential privacy in a run share: its specification, and noise that follows from a seed."""

import zlib
from typing import Any

import numpy as np
from runs import specification

from cospan.core.method import practical
from cospan.core.privacy.word_source import SeededWords, WordSource
from cospan.core.specification import RunSpecification

PROMISE: dict[str, Any] = {
    "dp_epsilon": 8.0,
    "dp_delta": 1e-5,
    "dp_vectors": 10,
    "dp_noise_multiplier": 2.05,  # 2.02 is the least for 10 vectors
    "dp_gradient_bound": 10.0,
    "dp_curvature_bound": 50.0,
    "dp_influence_bound": 1.0,
}


def private(**changes: Any) -> RunSpecification:
    values: dict[str, Any] = {
        "method": practical(3),
        "agents": 5,
        "rounds": 6,
        "secure_sums": True,
        "min_cohort": 3,
        "feature_fingerprint": "map-1",
        **PROMISE,
    }
    return specification(**(values | changes))


def seeded(name: str, round_number: int, seed: int = 0) -> WordSource:
    """The source of one agent's noise in one round."""
    return SeededWords(np.random.SeedSequence((seed, zlib.crc32(name.encode()), round_number)))
