"""What every test shares: shapes are checked at run time, and property tests draw the same examples each time.

The hook has to be there before the first import of cospan, so this file imports nothing of it.
"""

import gc
import os
from collections.abc import Iterator

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
"""As `cospan` sets it for its own processes; numpy reads it when it is imported. With more threads than free cores,
waiting for each other takes them several times the arithmetic."""

import hypothesis
import pytest
import shape_checks
from ctrl_c import heed_ctrl_c

shape_checks.install(("cospan.core", "cospan.wire", "cospan.client", "cospan.server"))

hypothesis.settings.register_profile(
    "cospan",
    derandomize=True,
    deadline=None,
    max_examples=30,
    database=None,
    print_blob=False,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # a loaded machine is no fault of a test
)
hypothesis.settings.load_profile("cospan")


def pytest_configure(config: pytest.Config) -> None:
    """Prepares the process of the tests.

    beartype looks at one random item of a tuple, also where a strategy builds a dataclass that holds one.
    Hypothesis takes that for randomness of the strategy. It is none: no drawn value depends on it.
    """
    heed_ctrl_c()
    config.addinivalue_line("filterwarnings", "ignore:Do not use the `random` module inside strategies")


_OBJECTS_BETWEEN_COLLECTIONS = 20000


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Leaves what is imported and collected out of garbage collections: it stays, and a pass over it takes long.

    Collections are also fewer: the machines make many small objects, of which few are parts of a cycle.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
        gc.enable()
