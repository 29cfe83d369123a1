"""The home page of the documentation in a real Chromium: no barrier for a reader, and no other host is asked."""

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from browser.watch import ROOT, SIZES, look

SECONDS = 300.0


class _Silent(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and logs nothing."""

    def log_message(self, *_: Any) -> None: ...


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
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.mark.parametrize("size", SIZES)
def test_the_home_page_has_no_serious_violation(browser: Any, home: str, size: str) -> None:
    watch = look(browser, home, size)
    watch.until("document.querySelector('.md-typeset__scrollwrap') !== null")
    watch.picture(f"site-{size}")
    assert watch.serious() == []
    watch.sound()
