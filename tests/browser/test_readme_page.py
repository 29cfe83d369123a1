"""The README, rendered as a code host does: its pictures load in both colour schemes, and nothing bars a reader."""

from collections.abc import Iterator
from typing import Any

import pytest
from browser.watch import ROOT, SIZES, look, served

markdown_it = pytest.importorskip("markdown_it", reason="make browser-test installs it")

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>README</title>
<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width"><style>
:root { color-scheme: light dark; }
body { max-width: 55rem; margin: 0 auto; padding: 1rem; font: 16px/1.5 sans-serif; }
body { background: light-dark(#fff, #0d1117); color: light-dark(#1f2328, #f0f6fc); }
a { color: light-dark(#0969da, #4493f8); }
img { max-width: 100%%; height: auto; }
pre, table { display: block; overflow-x: auto; max-width: 100%%; }
pre { padding: 1rem; background: light-dark(#f6f8fa, #151b23); }
td, th { border: 1px solid #8888; padding: .3rem .8rem; text-align: left; }
</style></head><body><main>%s</main></body></html>"""


@pytest.fixture(scope="module")
def readme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the rendered README; what it links to is served beside it."""
    folder = tmp_path_factory.mktemp("readme")
    rendered = markdown_it.MarkdownIt("gfm-like", {"linkify": False, "html": True})
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    # What scrolls can be reached by the keyboard, as on the hosts that show the file.
    body = rendered.render(text).replace("<pre>", '<pre tabindex="0">').replace("<table>", '<table tabindex="0">')
    (folder / "index.html").write_text(_PAGE % body, encoding="utf-8")
    (folder / "docs").symlink_to(ROOT / "docs")
    with served(folder) as address:
        yield address


@pytest.mark.parametrize("size", SIZES)
def test_the_readme_shows_its_pictures_and_has_no_serious_violation(browser: Any, readme: str, size: str) -> None:
    watch = look(browser, readme, size)
    watch.until("[...document.images].every((image) => image.complete)")
    broken = watch.page.evaluate(
        "[...document.images].filter((image) => !image.naturalWidth).map((image) => image.currentSrc)"
    )
    assert broken == []
    scheme = size.rsplit("-", 1)[1]
    shown = watch.page.evaluate("[...document.querySelectorAll('picture img')].map((image) => image.currentSrc)")
    assert shown
    assert all(f"-{scheme}." in source for source in shown), "of the reader's colour scheme"
    watch.picture(f"readme-{size}")
    assert watch.serious() == []
    watch.sound()
