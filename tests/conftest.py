"""What every test shares: shapes are checked at run time, and property tests draw the same examples each time.

The hook has to be there before the first import of cospan, so this file imports nothing of it.
"""

import dataclasses
import inspect
import os
import sys
import typing
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
"""As `cospan` sets it for its own processes; numpy reads it when it is imported. With more threads than free cores,
waiting for each other takes them several times the arithmetic."""

import hypothesis
import jaxtyping
import pytest
from ctrl_c import heed_ctrl_c

_PACKAGES = ("cospan.core", "cospan.wire", "cospan.client", "cospan.server")
_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
"""beartype, with the rule of PEP 484 (and of mypy) that an int is good where a float is asked for."""
_UNCHECKED = {"cospan.client.workloads.models.microgrids"}
"""beartype cannot read a subscripted generic NamedTuple (`Arithmetic[float]`) and refuses the module."""


def _has_shapes(annotation: Any) -> bool:
    """Whether an annotation says anything of shapes; a string may."""
    if isinstance(annotation, str):
        return True
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(map(_has_shapes, typing.get_args(annotation)))


def _has_shapes_in(function: Any) -> bool:
    return any(map(_has_shapes, function.__annotations__.values()))


def _check(*, typechecker: Callable[[Any], Any], shapes: Any = jaxtyping.jaxtyped) -> Callable[[Any], Any]:
    """The decorator of the hook: jaxtyping's where a signature has shapes, elsewhere the type checker alone.

    Both check the same types. A call through jaxtyping also binds its arguments and opens a scope for axes, which
    takes tens of microseconds: half the time of tests that step through environments.
    """

    def decorated(thing: Any) -> Any:
        if dataclasses.is_dataclass(thing) and "__init__" in vars(thing) and not _has_shapes_in(thing.__init__):
            thing.__init__ = typechecker(thing.__init__)
            return thing
        if inspect.isfunction(thing) and not _has_shapes_in(thing):
            return typechecker(thing)
        return shapes(thing, typechecker=typechecker)

    return decorated


jaxtyping.jaxtyped = _check

if _loaded := sorted(name for name in sys.modules if name.startswith(_PACKAGES)):
    raise RuntimeError(f"imported before the hook that checks shapes: {', '.join(_loaded)}")
_finder = jaxtyping.install_import_hook(_PACKAGES, _CHECKER).hook
_should_instrument = _finder.should_instrument
_finder.should_instrument = lambda name: name not in _UNCHECKED and _should_instrument(name)

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
