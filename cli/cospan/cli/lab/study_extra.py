"""What studies need beyond the plain installation."""

import importlib.util

from cospan.wire.errors import InvalidValueError


def require_study(command: str) -> None:
    """Says what to install where it is not.

    Raises:
        InvalidValueError: scipy or matplotlib is missing.
    """
    missing = [name for name in ("scipy", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidValueError(f"{command} needs {' and '.join(missing)}; pip install '.[study]'")
