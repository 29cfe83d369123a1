"""A value function is asked in a process that has no gRPC."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from runs import SECONDS
from unit.client.test_value_function import queue

from cospan.client import ValueFunction
from cospan.client.learning.site_learner import SiteLearner

SEED, STATES = 5, np.arange(44)


def of(learner: SiteLearner) -> ValueFunction:
    return ValueFunction.of_learner(learner, learner.site.features)


def test_it_can_be_asked_where_there_is_no_grpc(tmp_path: Path) -> None:
    of(queue()).save(tmp_path / "a.npz")
    program = (
        "import sys; from cospan.client import ValueFunction; value = ValueFunction.load('a.npz'); "
        "print(value.value(3)); print(*(name for name in sys.modules if name.split('.')[0] in ('grpc', 'google')))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=True
    )
    number, imported = said.stdout.splitlines()
    assert float(number) == of(queue()).value(3)
    assert imported == ""
