"""Packages of the extras, which the plain installation does not have."""

import importlib.util
from collections.abc import Sequence

from cospan.wire.errors import InvalidValueError


def require(what: str, packages: Sequence[str], extra: str) -> None:
    """Checks that packages are installed.

    Args:
        what: command or option that needs them.
        packages: names of modules.
        extra: that installs them.

    Raises:
        InvalidValueError: one is missing; the text says what to install.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidValueError(f"{what} needs {' and '.join(missing)}; pip install '.[{extra}]'")
