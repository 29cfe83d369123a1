"""Every message that docs/troubleshooting.md quotes is one that the code still has."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
SOURCES = ("common", "server", "client", "relay", "dashboard", "cli")
VALUE = "\0"
"""Stands for what an f-string fills in."""


def quoted(page: str) -> list[str]:
    """The code at the beginning of a row: messages, with … for what varies. Symptoms are in italics."""
    return re.findall(r"^\| `([^`]+(?:`[^`|]+`[^`|]*)?)` \|", page, flags=re.MULTILINE)


@cache
def texts() -> str:
    """Every string of the code, one per line."""
    files = [path for source in SOURCES for path in sorted((ROOT / source / "cospan").rglob("*.py"))]
    return "\n".join(" ".join(text.split()) for path in files for text in _strings(path))


def _strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def is_of_the_code(message: str) -> bool:
    """Whether one string has the words of a message in their order, with anything or nothing for each …."""
    words = [" ".join(part.split()) for part in message.split("…")]
    return re.search("[^\n]*?".join(map(re.escape, filter(None, words))), texts()) is not None


def test_the_page_quotes_messages() -> None:
    assert len(quoted(PAGE.read_text(encoding="utf-8"))) > 40


@pytest.mark.parametrize("message", quoted(PAGE.read_text(encoding="utf-8")))
def test_a_quoted_message_is_one_of_the_code(message: str) -> None:
    assert is_of_the_code(message), f"no string of the code has these words: {message}"


def test_a_message_of_no_string_is_found() -> None:
    assert not is_of_the_code("the run folder … is in use by another walk")
    assert not is_of_the_code("is in use by another run … the run folder")


def test_a_row_with_code_in_it_is_read_whole() -> None:
    assert quoted("| `say `x` now` | why | what |\n| *slow* (`a`) | | |\n") == ["say `x` now"]
