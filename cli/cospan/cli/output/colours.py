"""Colours of the terminal: where they are shown, and what each stands for.

Every colour repeats what a word or a sign says: output without colours says the same.
"""

from collections.abc import Mapping
from typing import TextIO

_CODES = {"title": "1", "name": "36", "better": "32", "worse": "33", "faint": "2"}
"""Of ECMA-48, by meaning. Worse is yellow: a site that is better off alone is a finding, not a failure."""


def is_coloured(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether colours are shown on a stream: a terminal that can, unless NO_COLOR is set (https://no-color.org)."""
    if environment.get("NO_COLOR"):
        return False
    return is_able(stream, environment)


def is_able(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal that moves its cursor and shows styles."""
    return stream.isatty() and environment.get("TERM", "") not in ("", "dumb")


def coloured(text: str, meaning: str) -> str:
    """The text in the colour of a meaning: title, name, better, worse or faint."""
    return f"\x1b[{_CODES[meaning]}m{text}\x1b[0m"


def can_show(stream: TextIO, text: str) -> bool:
    """Whether a stream's encoding has all characters of a text."""
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
