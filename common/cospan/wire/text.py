"""Text of peers made fit for logs, terminals, pages and files: on one line, printable, bounded in length.

A peer chooses what it sends, and a terminal obeys escape sequences: text that moves the cursor, sets a title or
turns the direction of writing can hide or forge what a person reads. Identifiers (a run's name, a workload's name,
an agent's name) are refused where they hold such characters; sentences are shown, each such character replaced.
"""

from collections.abc import Sequence

MAX_TEXT = 512
CUT = "…"
"""Stands for the rest of a text that is too long."""
REPLACED = "\N{REPLACEMENT CHARACTER}"
"""Stands for a character that does not print."""
MAX_SENTENCE = 2000
"""Most characters of the sentence of an error, from whichever side."""
MAX_RECORD = 8000
"""Most characters of the message of a log record."""
MAX_TRACEBACK = 64_000
"""Most characters of the traceback of a log record."""
MAX_NAMED = 5
"""Most names in one sentence."""


def printable(text: str, most: int = MAX_TEXT) -> str:
    """The text on one line, without characters that do not print, and of at most `most` characters.

    White space other than the plain space becomes a space: line ends, tabs, U+0085, U+2028. Whatever else Python's
    `str.isprintable` refuses becomes U+FFFD: C0 and C1 controls, ESC, DEL, bidirectional overrides, zero-width and
    other format characters, surrogates, private and unassigned characters. What has passed once is left as it is.
    """
    kept = text if len(text) <= most else text[: max(most - 1, 0)] + CUT[:most]
    return kept if kept.isprintable() else "".join(map(_shown, kept))


def printable_lines(text: str, most: int = MAX_TRACEBACK) -> str:
    """Several lines, each made printable; at most `most` characters in all."""
    kept = text if len(text) <= most else text[: max(most - 1, 0)] + CUT[:most]
    return "\n".join(printable(line, most) for line in kept.splitlines())


def listed(names: Sequence[str], most: int = MAX_NAMED) -> str:
    """The first `most` names, separated by commas, and the number of the others: "a, b and 4 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def and_more(count: int, most: int) -> list[str]:
    """The line below the first `most` rows of a table of `count` rows; no line if these are all."""
    return [f"… and {count - most:,} more"] if count > most else []


def counted(number: int, noun: str) -> str:
    """A number of things whose plural ends in s: "no problem", "1 problem", "12 problems"."""
    return f"{number or 'no'} {noun}" if number < 2 else f"{number} {noun}s"


def split_remedy(sentence: str) -> tuple[str, str]:
    """What an error's sentence says is wrong, and the remedy after its last semicolon; "" where it has none."""
    what, semicolon, remedy = sentence.rpartition("; ")
    return (what, remedy) if semicolon else (sentence, "")


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else REPLACED
