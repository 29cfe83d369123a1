"""Reports words that docs/glossary.md does not use for a term, and counts phrases that the prose avoids.

python docs/scripts/check_glossary.py [--root FOLDER]

It reads every text file that git tracks, except the glossary, the changelog and generated files. A word is also
found inside identifiers: `roll` in `agent_roll`, `RollOfAgents` and `ROLL_SIZE`, not in `rollout`. Exit code 1
means that a word was found, or that there are more than `PHRASES_AT_MOST` phrases.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

GLOSSARY = "docs/glossary.md"
PHRASES = ("so many", "so long", "goes on", "anew", "somebody", "whoever", "nobody")
PHRASES_AT_MOST = 14

_SUFFIXES = (
    *(".cfg", ".conf", ".css", ".example", ".html", ".ini", ".js", ".md", ".mjs", ".proto", ".py", ".sh", ".toml"),
    *(".txt", ".yaml", ".yml"),
)
_NAMES = frozenset({"Dockerfile", "Makefile"})
_LEFT_OUT = frozenset({GLOSSARY, "CHANGELOG.md", "docs/scripts/check_glossary.py"})
_GENERATED = ("_pb2.py", "_pb2_grpc.py")
_OF_OTHERS = ("docs/assets/",)
_GAP = r"(?:\s|[#*/>\"'])+"  # between the words of a phrase: blanks, line breaks, comment markers, quotes


@dataclass(frozen=True, slots=True)
class Rule:
    """A word that is not used for a term.

    Attributes:
        word: in lower case.
        term: to use in its place.
        allowed: regular expressions; a use inside a match of one of them is right.
    """

    word: str
    term: str
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Use:
    """A forbidden word, or a phrase, in a file.

    Attributes:
        path: relative to the root.
        line: from 1.
        word: as the glossary has it.
        term: to use in its place; empty for a phrase.
    """

    path: str
    line: int
    word: str
    term: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word} → {f'use {self.term}' if self.term else 'reword'}"


def rules_of(glossary: str) -> list[Rule]:
    """The forbidden words of the tables of a page whose columns are term, symbol, meaning and not.

    Raises:
        ValueError: a row has another number of columns, or a word stands in two rows.
    """
    found: dict[str, Rule] = {}
    for row in re.findall(r"^\|(.*)\|$", glossary, re.MULTILINE):
        cells = [cell.strip() for cell in row.split("|")]
        if len(cells) != 4:
            raise ValueError(f"this row of the glossary has {len(cells)} columns instead of 4: {row.strip()}")
        for word, allowed in re.findall(r"`([^`]+)`(?: \(but ((?:`[^`]+`(?:, )?)+)\))?", cells[3]):
            if word in found:
                raise ValueError(f"the glossary forbids {word!r} twice: {found[word].term} and {cells[0]}")
            found[word] = Rule(word, cells[0], tuple(re.findall(r"`([^`]+)`", allowed)))
    return list(found.values())


def uses_in(path: str, text: str, rules: Iterable[Rule]) -> Iterator[Use]:
    """The forbidden words of a file, and the phrases."""
    for rule in rules:
        if rule.word not in text.lower():
            continue
        searched = text
        for allowed in rule.allowed:
            searched = re.sub(_allowed_pattern(allowed), _blanks, searched, flags=re.IGNORECASE)
        for match in _word_pattern(rule.word).finditer(searched):
            yield Use(path, _line_of(text, match.start()), rule.word, rule.term)
    for phrase in PHRASES:
        pattern = rf"\b{_GAP.join(map(re.escape, phrase.split()))}\b"
        for match in re.finditer(pattern, text, re.IGNORECASE):
            yield Use(path, _line_of(text, match.start()), phrase)


def texts(root: Path, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Those files of `paths` that are searched, each with its text."""
    for path in paths:
        file = root / path
        is_text = file.suffix in _SUFFIXES or file.name in _NAMES
        is_ours = path not in _LEFT_OUT and not path.endswith(_GENERATED) and not path.startswith(_OF_OTHERS)
        if is_text and is_ours and file.is_file():
            yield path, file.read_text(encoding="utf-8")


def check(root: Path, paths: Iterable[str]) -> tuple[list[Use], list[Use]]:
    """The forbidden words in the files, and the phrases."""
    rules = rules_of((root / GLOSSARY).read_text(encoding="utf-8"))
    uses = [use for path, text in texts(root, paths) for use in uses_in(path, text, rules)]
    uses.sort(key=lambda use: (use.path, use.line, use.word))
    return [use for use in uses if use.term], [use for use in uses if not use.term]


def _word_pattern(word: str) -> re.Pattern[str]:
    """A word by itself, or as a part of an identifier in snake_case, camelCase or CAPITALS."""
    lower, capitalised, upper = re.escape(word), re.escape(word.capitalize()), re.escape(word.upper())
    return re.compile(
        rf"(?<![A-Za-z]){lower}(?![a-z])|(?<![A-Z]){capitalised}(?![a-z])|(?<![A-Za-z]){upper}(?![A-Za-z])"
    )


def _allowed_pattern(allowed: str) -> str:
    """The expression with plain parentheses as they are, and blanks that may be line breaks."""
    return _GAP.join(part.replace("(", r"\(").replace(")", r"\)") for part in allowed.split())


def _blanks(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _tracked(root: Path) -> list[str]:
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], check=True, capture_output=True)
    return [path for path in listed.stdout.decode("utf-8").split("\0") if path]


def main() -> int:
    """Prints what is found; 1 where that is too much."""
    parser = argparse.ArgumentParser(description="Check the tree against docs/glossary.md.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--phrases", action="store_true", help="print where the phrases are, too")
    arguments = parser.parse_args()
    words, phrases = check(arguments.root, _tracked(arguments.root))
    too_many = len(phrases) > PHRASES_AT_MOST
    for use in [*words, *(phrases if too_many or arguments.phrases else ())]:
        print(use)
    print(f"{len(words)} forbidden words; {len(phrases)} phrases to reword, of at most {PHRASES_AT_MOST}")
    return int(bool(words) or too_many)


if __name__ == "__main__":
    sys.exit(main())
