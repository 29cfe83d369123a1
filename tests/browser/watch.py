"""A page in a browser, and all that is observed of it."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "build" / "browser" / "axe.min.js"
PICTURES = ROOT / "build" / "screenshots"
WAIT_MS = 180_000
SIZES = {
    f"{name}-{scheme}": (width, height, scheme)
    for name, width, height in (("wide", 1440, 1000), ("narrow", 390, 844))
    for scheme in ("light", "dark")
}
AGENTS = 12
QUESTIONS = ("learning", "alone", "unusual", "slow", "time", "next")


class Watch:
    """A page, and all that it complained of or asked another host for."""

    def __init__(self, context: Any, url: str) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.complaints: list[str] = []
        self.page.on(
            "console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text)
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        own = urlsplit(url).netloc
        self.strangers: list[str] = []
        self.page.on("request", lambda asked: self._note(asked.url, own))
        self.lost: list[str] = []
        self.page.on("requestfailed", self._failed)
        self.page.goto(url)

    def _note(self, url: str, own: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "file", "blob") and parts.netloc != own:
            self.strangers.append(url)

    def _failed(self, asked: Any) -> None:
        """A file of the page; what its script asks may well fail, where the run ends meanwhile."""
        if asked.resource_type in ("document", "stylesheet", "script", "font", "image"):
            self.lost.append(f"{asked.failure}: {asked.url}")

    def picture(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png", full_page=True, timeout=WAIT_MS)

    def serious(self) -> list[str]:
        """What axe-core finds of serious or critical impact, once the page looks as it shall."""
        self.until("[...document.styleSheets].every(sheet => sheet.cssRules.length > 0)")
        assert self.lost == [], "a page without all of its files looks otherwise"
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run()")
        assert found["passes"], "axe has looked at something"
        return [
            f"{one['id']}: {one['nodes'][0]['html'][:200]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]

    def until(self, condition: str) -> None:
        """Waits for a condition; Playwright's own way evaluates text in the page, which its policy forbids."""
        deadline = time.monotonic() + WAIT_MS / 1000
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, f"not in time: {condition}; {self._state()}"
            self.page.wait_for_timeout(50)

    def _state(self) -> str:
        """What there is to know of a page that does not do what is awaited."""
        shown = self.page.evaluate("[document.documentElement.dataset.round, document.body.innerText]")
        return f"complaints {self.complaints}, lost {self.lost}, shown {json.dumps(shown)[:2000]}"

    def column(self, name: str) -> list[str]:
        """The cells below a heading of the table of agents; of the first column the names alone."""
        heads = [text.strip() for text in self.page.locator("#agents-head th").all_inner_texts()]
        place = heads.index(name) + 1
        inside = " button" if place == 1 else ""
        return [
            text.strip()
            for text in self.page.locator(f"#agents-body tr > :nth-child({place}){inside}").all_inner_texts()
        ]

    def answers(self) -> dict[str, str]:
        """What is visible of the answer to each question."""
        return {key: self.page.locator(f"#answer-{key}").inner_text() for key in QUESTIONS}

    def sound(self) -> None:
        """No complaint and no request to another host; and closes the page, which would draw on."""
        assert not self.complaints
        assert not self.strangers
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it fits the width"
        self.page.context.close()


def look(browser: Any, url: str, size: str = "wide-light", **more: Any) -> Watch:
    """Opens an address in a window of one of `SIZES`."""
    width, height, scheme = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **more)
    return Watch(context, url)


@contextmanager
def saved(watch: Watch, label: str) -> Iterator[list[Path]]:
    """Clicks the button with this label; the file that it saves is in the list afterwards."""
    found: list[Path] = []
    with watch.page.expect_download() as download:
        watch.page.get_by_role("button", name=label, exact=True).click()
    assert download.value.failure() is None
    found.append(Path(download.value.path()))
    yield found


class _Server(http.server.ThreadingHTTPServer):
    """Keeps as many connections waiting as a browser opens at once on a busy machine; five are too few."""

    request_queue_size = 128


class _Silent(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and logs nothing."""

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder's `index.html`, served on loopback."""
    server = _Server(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    thread.join(10)
    server.server_close()
