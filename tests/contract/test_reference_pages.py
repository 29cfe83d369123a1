"""The Python reference of docs/reference has every public name, and names only what there is."""

import importlib
import re
from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parents[2] / "docs" / "reference"
PUBLIC = ("cospan.client", "cospan.simulation", "cospan.server")


def documented() -> list[str]:
    """Modules and names of which the site shows the docstrings."""
    pages = (page.read_text(encoding="utf-8") for page in sorted(PAGES.glob("*.md")))
    return [name for page in pages for name in re.findall(r"^::: ([\w.]+)$", page, flags=re.MULTILINE)]


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_documented(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        found = getattr(module, name)
        assert {found.__module__, f"{found.__module__}.{name}"} & set(documented()), f"{package}.{name}"


@pytest.mark.parametrize("name", documented())
def test_what_is_documented_exists(name: str) -> None:
    """So that a renamed module fails here, and not only where the site is built."""
    home, _, last = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        assert hasattr(importlib.import_module(home), last)


def test_no_name_is_documented_twice() -> None:
    assert len(set(documented())) == len(documented()) > 30
