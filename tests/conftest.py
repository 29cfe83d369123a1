"""What every test shares: shapes are checked at run time, and property tests draw the same examples each time.

The hook has to be there before the first import of cospan, so this file imports nothing of it.
"""

import sys

import hypothesis
import jaxtyping
import pytest

_PACKAGES = ("cospan.core", "cospan.wire", "cospan.client", "cospan.server")
_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
"""beartype, with the rule of PEP 484 (and of mypy) that an int is good where a float is asked for."""
_UNCHECKED = {"cospan.client.workloads.models.microgrids"}
"""beartype cannot read a subscripted generic NamedTuple (`Arithmetic[float]`) and refuses the module."""

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
    """beartype looks at one random item of a tuple, also where a strategy builds a dataclass that holds one.

    Hypothesis takes that for randomness of the strategy. It is none: no drawn value depends on it.
    """
    config.addinivalue_line("filterwarnings", "ignore:Do not use the `random` module inside strategies")
