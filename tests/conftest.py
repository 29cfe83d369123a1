"""What every test shares: shapes are checked at run time, and property tests draw the same examples each time.

The hook has to be there before the first import of cospan, so this file imports nothing of it. `SHAPE_CHECKS=0`
leaves it out, as `make unit` does: it takes a quarter of the time. `make test` runs the same tests with it.
"""

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
"""As `cospan` sets it for its own processes; numpy reads it when it is imported. With more threads than free cores,
waiting for each other takes them several times the arithmetic."""

import hypothesis
import pytest
import shape_checks
from ctrl_c import heed_ctrl_c

if os.environ.get("SHAPE_CHECKS", "1") != "0":
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


_HERE = Path(__file__).parent
_MEASURED = tuple(
    _HERE / name
    for name in ("property", "unit/core", "unit/wire", "unit/server", "unit/relay", "unit/client/session")
)
"""The tests whose share of lines and branches `make test` looks at: those of what it holds to a share."""
_WHOLE_RUNS = ("test_simulator", "test_machine_stateful", "test_secure_sums_stateful", "test_relayed_secure_sums")
"""Tests in these files play so many runs that to measure them takes half a minute, and what they run is measured
elsewhere."""


def _is_measured(path: Path) -> bool:
    return any(path.is_relative_to(each) for each in _MEASURED) and not path.name.startswith(_WHOLE_RUNS)


@contextlib.contextmanager
def _measured_if(is_measured: bool) -> Iterator[None]:
    """Without coverage, what runs here, and in threads that begin here, takes half the time.

    The mark `no_cover` of pytest-cov has no effect in the processes of xdist.
    """
    if is_measured:
        yield
        return
    tracer, of_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        threading.settrace(of_threads)  # type: ignore[arg-type]
        sys.settrace(tracer)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """See `_MEASURED`."""
    shape_checks.begin_test()
    with _measured_if(_is_measured(item.path)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """See `_MEASURED`."""
    with _measured_if(_is_measured(item.path)):
        return (yield)
