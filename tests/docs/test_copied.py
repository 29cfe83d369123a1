"""What people copy from the pages exists: extras, files, commands with their options, targets of make."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from docs.pages import ROOT
from markdown_it import MarkdownIt

from cospan.cli.main import app

PAGES = sorted(
    {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")}
    - set((ROOT / "examples").glob("*/node_modules/**/*.md"))  # others' pages, installed by `make node-test`
    - {ROOT / "CHANGELOG.md"}
)
_INSTALL = re.compile(r"pip install (?P<rest>[^`#\n]*)")
_OWN = re.compile(r"^(?:\.|\./cospan|cospan)\[(?P<extras>[\w,-]+)\](?: @ .*)?$")
_MAKE = re.compile(r"\bmake ((?:[a-z0-9-]+ ?)+)")
_COMMAND = re.compile(r"(?:^|(?<=[\s`$(]))cospan (?P<rest>[a-z][^`|)\n]*)")
_ROOTS = ("docs/", "examples/", "tests/", "deploy/")
_PLACEHOLDERS = re.compile(r"[<>{}*…]|\bID\b|\bNAME\b|\bFILE\b")


_TOP: Any = typer.main.get_command(app)


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


def codes(page: Path) -> Iterator[tuple[int, str]]:
    """Every fenced block's line and every code span of a page, with its line."""
    for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        line = (token.map or [0])[0] + 1
        if token.type == "fence":
            joined = token.content.replace("\\\n", " ")
            yield from ((line + number, text) for number, text in enumerate(joined.splitlines(), 1))
        for child in token.children or ():
            if child.type == "code_inline":
                yield line, child.content


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_extra_that_a_page_installs_exists(page: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line, text in codes(page):
        for found in _INSTALL.finditer(text):
            for word in shlex.split(found["rest"]):
                own = _OWN.match(word)
                extras = set(own["extras"].split(",")) if own else set()
                missing = extras - set(project["optional-dependencies"])
                assert not missing, f"{page}:{line}: {word} has no extra {missing}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r"(?:src|srcset)=\"([^\"]+)\"", text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page} links to {target}"
    for line, code in codes(page):
        for word in code.split():
            path = word.strip("'\"`,;:().").partition("#")[0]
            if path.startswith(_ROOTS) and not _PLACEHOLDERS.search(path) and "::" not in path:
                assert (ROOT / path).exists() or (page.parent / path).exists(), f"{page}:{line}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    for line, code in codes(page):
        for found in _COMMAND.finditer(code):
            problem = problem_of(found["rest"])
            assert not problem, f"{page}:{line}: cospan {found['rest']}: {problem}"


def problem_of(rest: str) -> str:
    """What is wrong with the words after `cospan`; empty where they are a command and its options."""
    command = _TOP
    words = rest.partition("  #")[0].partition(" && ")[0].split()
    while words and hasattr(command, "commands"):
        name = words.pop(0).strip(".,;:'\"")
        if name not in command.commands:
            return f"there is no command {name!r}"
        command = command.commands[name]
    known = {flag for each in getattr(command, "params", ()) for flag in (*each.opts, *each.secondary_opts)}
    known |= {"--help", "-h"}
    for word in words:
        flag = word.strip("[]().,;:'\"").partition("=")[0]
        if re.fullmatch(r"--[a-z][a-z-]*", flag) and flag not in known:
            return f"there is no option {flag}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_target_of_make_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line, code in codes(page):
        for found in _MAKE.finditer(code if code.startswith(("make ", "$ make ")) else ""):
            for name in found[1].split():
                assert name in targets, f"{page}:{line}: make {name}"


def test_what_does_not_exist_is_found() -> None:
    assert problem_of("run queues --agents 8") == ""
    assert problem_of("run queues --agent 8") == "there is no option --agent"
    assert problem_of("certs issue certs --agent site-7") == ""
    assert problem_of("rnu queues") == "there is no command 'rnu'"
