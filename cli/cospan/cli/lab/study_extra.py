"""Packages that studies need beyond the plain installation."""

import importlib.util

from cospan.wire.errors import InvalidValueError


def require_study(command: str) -> None:
    """Checks the packages of the extra `study`.

    Raises:
        InvalidValueError: scipy or matplotlib is missing.
    """
    missing = [name for name in ("scipy", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidValueError(f"{command} needs {' and '.join(missing)}; pip install 'cospan[study]'")
