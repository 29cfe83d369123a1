"""The dashboard and the report in a real Chromium: what is seen, that it moves, and that everybody can use it.

`make browser-test` fetches what this needs: Chromium, and axe-core into build/browser.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="make browser-test installs it")

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "build" / "browser" / "axe.min.js"
PICTURES = ROOT / "build" / "screenshots"
COSPAN = [sys.executable, "-m", "cospan.cli.main"]
AGENTS = 12
WAIT_MS = 60_000
SIZES = {"wide": (1440, 1000, "light"), "narrow": (390, 844, "dark")}


Live = tuple[str, Any, Path]
"""The address of a dashboard, the process of its run, and the run's folder."""


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
        self.page.goto(url)

    def _note(self, url: str, own: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "file", "blob") and parts.netloc != own:
            self.strangers.append(url)

    def picture(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png", full_page=True)

    def serious(self) -> list[str]:
        """What axe-core finds of serious or critical impact."""
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
            assert time.monotonic() < deadline, f"not in time: {condition}"
            self.page.wait_for_timeout(50)

    def column(self, place: int) -> list[str]:
        return self.page.locator(f"#agents-body tr > :nth-child({place})").all_inner_texts()

    def sound(self) -> None:
        """No complaint and no request to another host; and closes the page, which would go on drawing."""
        assert not self.complaints
        assert not self.strangers
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it fits the width"
        self.page.context.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path is not None, "there is no Chromium; make browser-test installs it"
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


def look(browser: Any, url: str, size: str) -> Watch:
    width, height, scheme = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    return Watch(context, url)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A run of twelve agents without an end; its address, its process and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    command = [
        *COSPAN, "run", "synthetic", "--agents", str(AGENTS), "--rounds", "0", "--seed", "1",
        "--agent-restarts", "0", "--session-timeout-seconds", "2", "--dashboard", "127.0.0.1:0",
        "--output", str(folder),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    deadline = threading.Timer(60, process.kill)
    deadline.start()
    lines = []
    while "dashboard: " not in (line := process.stdout.readline()):
        lines.append(line)
        assert line, f"no dashboard was named: {lines}"
    deadline.cancel()
    found = re.search(r"dashboard: (http://\S+)", line)
    assert found is not None
    reader = threading.Thread(target=process.stdout.read)
    reader.start()
    yield found[1], process, folder
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    process.wait(60)
    reader.join(10)
    process.stdout.close()


def agent_process(parent: int, name: str) -> int:
    """The process of one agent of a run."""
    asked = ["pgrep", "-P", str(parent), "-f", f" --id {name} "]
    found = subprocess.run(asked, capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.parametrize("size", SIZES)
def test_a_live_run_is_shown_and_moves(browser: Any, live: Live, size: str) -> None:
    watch = look(browser, live[0], size)
    page = watch.page
    watch.until("Number(document.documentElement.dataset.round) >= 30")
    watch.until("document.querySelector('.chart .plot .line').getAttribute('d').length > 200")
    before = int(page.evaluate("document.documentElement.dataset.round"))
    watch.until(f"Number(document.documentElement.dataset.round) > {before}")
    assert watch.page.inner_text("#phase") == "running"
    assert len(watch.column(1)) == AGENTS
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        assert chart.locator("svg").is_visible(), f"nothing is drawn: {chart.inner_text()}"
        box = chart.bounding_box()
        assert box["width"] > 250
        assert box["height"] > 150
    watch.until("document.querySelector('#agents-body tr > :nth-child(5)').textContent !== '–'")
    watch.picture(f"live-{size}")
    assert watch.serious() == []
    watch.sound()


def test_the_table_sorts_by_click_and_by_keyboard(browser: Any, live: Live) -> None:
    watch = look(browser, live[0], "wide")
    page = watch.page
    page.wait_for_selector(f"#agents-body tr:nth-child({AGENTS})")
    assert watch.column(1) == [f"site-{number}" for number in range(AGENTS)]
    head = page.locator("#agents-head th").first
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert watch.column(1) == [f"site-{number}" for number in reversed(range(AGENTS))]
    head.locator("button").press("Enter")
    assert watch.column(1)[0] == "site-0"
    page.fill("#filter", "site-1")
    assert watch.column(1) == ["site-1", "site-10", "site-11"]
    watch.sound()


def test_one_agent_opens_in_a_panel_with_an_address_of_its_own(browser: Any, live: Live) -> None:
    watch = look(browser, live[0], "wide")
    page = watch.page
    page.locator("#agents-body button", has_text="site-3").click()
    assert page.url.endswith("#agent=site-3")
    assert page.evaluate("document.activeElement.id") == "detail-title"
    watch.until("document.querySelector('#detail .line').getAttribute('d')?.length > 30")
    watch.picture("agent-wide")
    assert watch.serious() == []
    page.keyboard.press("Escape")
    assert page.locator("#detail").is_hidden()
    assert page.evaluate("document.activeElement.textContent") == "site-3"
    page.goto(f"{live[0]}#agent=site-5")
    page.reload()
    page.wait_for_selector("#detail-title:has-text('site-5')")
    watch.sound()


def test_the_theme_can_be_chosen_and_is_kept(browser: Any, live: Live) -> None:
    watch = look(browser, live[0], "wide")
    page = watch.page
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    page.click("#theme")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    page.wait_for_selector("#theme:has-text('dark')")
    assert page.evaluate(ground) == dark
    page.wait_for_selector("#agents-body tr")
    watch.picture("dark-wide")
    assert watch.serious() == []
    watch.sound()


def test_an_agent_that_is_killed_is_shown_as_gone(browser: Any, live: Live) -> None:
    watch = look(browser, live[0], "wide")
    page = watch.page
    page.wait_for_selector(f"#agents-body tr:nth-child({AGENTS})")
    os.kill(agent_process(live[1].pid, "site-7"), signal.SIGKILL)
    row = page.locator("#agents-body tr", has_text="site-7")
    row.locator(".pill", has_text="gone").wait_for(timeout=WAIT_MS)
    round_then = int(page.evaluate("document.documentElement.dataset.round"))
    watch.until(f"Number(document.documentElement.dataset.round) > {round_then}")
    page.locator("#agents-head button", has_text="Status").click()
    assert watch.column(1)[0] == "site-7"
    watch.picture("gone-wide")
    watch.sound()


def test_a_finished_run_opens_as_one_file_offline(browser: Any, live: Live, tmp_path: Path) -> None:
    url, process, folder = live
    watch = look(browser, url, "wide")
    watch.page.wait_for_selector("#agents-body tr")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) in (0, 75)
    watch.until("!document.querySelector('#notice').hidden")
    assert "ended" in watch.page.inner_text("#notice")
    watch.page.context.close()
    report = tmp_path / "report.html"
    subprocess.run([*COSPAN, "report", str(folder), "--output", str(report)], check=True)
    assert report.stat().st_size < 3_000_000
    for size, (width, height, scheme) in SIZES.items():
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, offline=True
        )
        opened = Watch(context, report.as_uri())
        opened.page.wait_for_selector(f"#agents-body tr:nth-child({AGENTS})")
        assert opened.page.inner_text("#phase") == "stopped"
        for chart in opened.page.locator(".chart").all():
            assert chart.locator("svg").is_visible(), chart.inner_text()
        opened.page.locator("#agents-body button", has_text="site-3").click()
        opened.page.wait_for_selector("#detail-title:has-text('site-3')")  # the address changes first
        assert "Mean reward" in opened.page.inner_text("#detail")
        opened.picture(f"report-{size}")
        assert opened.serious() == []
        opened.sound()


def many(count: int) -> dict[str, Any]:
    """The frame of a report, of that many agents."""
    columns = ["round", "movement", "subspace_error", "value_error", "p50", "p99", "contributors"]
    run = {
        "id": "many", "workload": "synthetic", "agents": count, "rounds": 100, "seed": 1, "feature_dim": 4,
        "rank": 1, "steps_per_round": 1, "head_update": "every-step", "aggregation": "mean", "round": 9,
        "participation": "all",
        "phase": "collecting", "phase_seconds": 2.0, "rounds_per_second": 3.0, "round_times": [0.1, 0.2],
        "waiting": {"count": 1, "names": ["site-1"]}, "finish_cause": None, "live": True, "message": "x",
        "errors": {"movement": 0.1, "subspace": None, "value": None},
    }  # fmt: skip
    row = ["connected", 0, 8, 0.5, 0, 0, 0, 9, 0, 0, None, "", None]
    return {
        "whole": True, "run": run, "agents": [[f"site-{number}", *row] for number in range(count)],
        "series": {"columns": columns, "stride": 1, "start": 0, "points": [[8, 0.1, None, None, 0.1, 0.2, count]]},
        "basis": None, "spectrum": None,
    }  # fmt: skip


def test_a_thousand_agents_are_shown_without_a_stutter(browser: Any, tmp_path: Path) -> None:
    from cospan.dashboard.report_page import report_page

    path = tmp_path / "many.html"
    path.write_text(report_page(many(1000)), encoding="utf-8")
    watch = look(browser, path.as_uri(), "wide")
    assert watch.page.inner_text("#page-now") == "1 to 25 of 1\u202f000"
    watch.page.click("#page-after")
    assert watch.column(1)[0] == "site-25"
    took = watch.page.evaluate(
        """() => {
          const head = document.querySelector("#agents-head th:nth-child(3) button");
          const times = [];
          for (let turn = 0; turn < 20; turn += 1) {
            const start = performance.now();
            head.click();
            document.body.getBoundingClientRect();
            times.push(performance.now() - start);
          }
          return times.sort((a, b) => a - b)[10];
        }"""
    )
    print(json.dumps({"milliseconds to sort and show 1,000 agents": took}))
    assert took < 50.0, "an update four times a second must not be felt"
    watch.sound()
