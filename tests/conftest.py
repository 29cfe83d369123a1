"""What every test shares: array shapes are checked at run time, and property tests draw the same examples each time."""

import sys

import hypothesis
import jaxtyping

_PACKAGES = ["cospan.core", "cospan.wire", "cospan.client", "cospan.server"]
_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
"""beartype, with the rule of PEP 484 (and of mypy) that an int is good where a float is asked for."""

if loaded := sorted(name for name in sys.modules if name.startswith(tuple(_PACKAGES))):
    raise RuntimeError(f"imported before the shapes could be checked: {loaded}")
jaxtyping.install_import_hook(_PACKAGES, _CHECKER)

hypothesis.settings.register_profile("cospan", derandomize=True, deadline=None, max_examples=60, database=None)
hypothesis.settings.load_profile("cospan")
