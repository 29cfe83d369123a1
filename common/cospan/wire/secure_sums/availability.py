"""Whether this installation can take part in secure sums, told before anything of theirs is imported."""

from importlib.util import find_spec

from cospan.wire.errors import InvalidValueError


def require_cryptography() -> None:
    """Checks that the package that has the ciphers is installed.

    Raises:
        InvalidValueError: it is not.
    """
    if find_spec("cryptography") is None:
        raise InvalidValueError(
            "secure sums need the package cryptography, which is not installed; install it with cospan[tls]"
        )
