"""Writes the tables of docs/reference/errors.md and docs/reference/metrics.md from the code: `make reference`.

python docs/scripts/reference_tables.py [--check]

A class of errors is in the tables if it has a `reason` of its own and no subclass with one, wherever in the source
it stands. With --check nothing is written, and the exit code is 1 if a page differs.
"""

import ast
import importlib
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from cospan.cli.output.exit_codes import EXIT_CODES
from cospan.server.telemetry.metric_catalogue import GROUPS, Metric
from cospan.wire.errors import CospanError, RemoteError

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
BEGIN, END = "<!-- {}: written by `make reference` -->\n", "<!-- end of {} -->\n"
_PAGE_NAMED = re.compile(r"\bdocs/([\w/-]+)\.md\b")


def errors_tables() -> dict[str, str]:
    """The tables of docs/reference/errors.md, by the name in their markers."""
    refused = [kind for kind in leaves() if issubclass(kind, RemoteError)]
    ending = [kind for kind in leaves() if not issubclass(kind, RemoteError)]
    return {
        "refusals": _table(
            ("reason", "class", "gRPC code", "retried", "meaning", "remedy"),
            ((*_names(kind), kind.code, "yes" if kind.retryable else "no", *_words(kind)) for kind in refused),
        ),
        "endings": _table(
            ("reason", "class", "exit code", "meaning", "remedy"),
            ((*_names(kind), str(kind.exit_code), *_words(kind)) for kind in ending),
        ),
        "exit codes": _table(("exit code", "meaning"), ((str(code), text) for code, text in EXIT_CODES.items())),
    }


def metrics_tables() -> dict[str, str]:
    """The tables of docs/reference/metrics.md, by the name in their markers."""
    head = ("metric", "type", "labels", "unit", "meaning", "what to do")
    return {group: _table(head, map(_metric, metrics)) for group, metrics in GROUPS.items()}


PAGES = {"errors.md": errors_tables, "metrics.md": metrics_tables}


def with_tables(page: str, tables: dict[str, str]) -> str:
    """The page with the tables between their markers."""
    for name, table in tables.items():
        before, rest = page.split(BEGIN.format(name))
        _, after = rest.split(END.format(name))
        page = f"{before}{BEGIN.format(name)}\n{table}\n{END.format(name)}{after}"
    return page


def leaves() -> list[type[CospanError]]:
    """Every class with a reason of its own and none below it, in the order of the source."""
    kinds = [getattr(importlib.import_module(module), name) for module, name in _declared()]
    return [kind for kind in kinds if not any(other is not kind and issubclass(other, kind) for other in kinds)]


def _declared() -> Iterator[tuple[str, str]]:
    """Module and name of every class with `reason = "…"`, in the source roots of pyproject.toml."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    for root in build["dev-mode-dirs"]:
        for path in sorted((ROOT / root / "cospan").rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and any(map(_is_reason, node.body)):
                    yield ".".join(path.relative_to(ROOT / root).with_suffix("").parts), node.name


def _is_reason(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and statement.targets[0].id == "reason"
        and isinstance(statement.value, ast.Constant)
    )


def _names(kind: type[CospanError]) -> tuple[str, str]:
    return f"`{kind.reason}`", f"`{kind.__name__}`"


def _words(kind: type[CospanError]) -> tuple[str, str]:
    """Meaning and remedy."""
    return _linked(" ".join(str(kind.__doc__).split())), _linked(kind.remedy)


def _metric(metric: Metric) -> tuple[str, ...]:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    words = (_linked(metric.meaning), _linked(metric.advice))
    return f"`{metric.sample_name}`", metric.kind.value, labels, metric.unit, *words


def _linked(text: str) -> str:
    """The text with each page of docs/ that it names as a link."""

    def link(page: re.Match[str]) -> str:
        title = page[1].removeprefix("reference/")
        target = f"{title}.md" if page[1].startswith("reference/") else f"../{title}.md"
        return f"[{title.replace('-', ' ')}]({target})"

    return _PAGE_NAMED.sub(link, text)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (head, ("---",) * len(head), *rows)
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in lines)


def main() -> int:
    """Writes the pages, or compares them; 1 if one differs."""
    code = 0
    for name, tables in PAGES.items():
        path = REFERENCE / name
        page = path.read_text(encoding="utf-8")
        expected = with_tables(page, tables())
        if "--check" not in sys.argv[1:]:
            path.write_text(expected, encoding="utf-8")
        elif page != expected:
            sys.stderr.write(f"docs/reference/{name} is not what the code gives: run 'make reference'\n")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
