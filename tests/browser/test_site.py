"""The home page of the documentation in a real Chromium: no barrier for a reader, and no other host is asked."""

from collections.abc import Iterator
from typing import Any

import pytest
from browser.watch import ROOT, SIZES, look, served


@pytest.fixture(scope="module")
def home() -> Iterator[str]:
    """The address of the home page of the site that `make browser-test`, or `make docs`, has built."""
    folder = ROOT / "build" / "site"
    assert (folder / "index.html").exists(), "there is no site; make browser-test builds it"
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
