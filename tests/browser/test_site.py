"""The home page of the documentation in a real Chromium: no barrier for a reader, and no other host is asked."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser.watch import ROOT, SIZES, look, served

SECONDS = 300.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "--quiet", "build", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def home(folder: Path) -> Iterator[str]:
    """The address of the home page."""
    with served(folder) as address:
        yield address


@pytest.mark.parametrize("size", SIZES)
def test_the_home_page_has_no_serious_violation(browser: Any, home: str, size: str) -> None:
    watch = look(browser, home, size)
    watch.until("document.querySelector('.md-typeset__scrollwrap') !== null")
    # Without its own style the page shows what is hidden, as the box that opens the search.
    watch.until("getComputedStyle(document.querySelector('[data-md-toggle=search]')).display === 'none'")
    watch.picture(f"site-{size}")
    assert watch.serious() == []
    watch.sound()
