"""The dashboard in a real Chromium: what is seen, that it moves, and that everybody can use it."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from browser.conftest import Live
from browser.paced_microgrids import SLOW
from browser.watch import AGENTS, QUESTIONS, SIZES, Watch, look

from cospan.dashboard.analysis.learnt import Learnt
from cospan.dashboard.payloads import AGENT_COLUMNS
from cospan.dashboard.report_page import report_page
from cospan.dashboard.series import COLUMNS


def agent_process(parent: int, name: str) -> int:
    """The process of one agent of a run."""
    asked = ["pgrep", "-P", str(parent), "-f", f" --id {name} "]
    found = subprocess.run(asked, capture_output=True, text=True, check=True)
    return int(found.stdout)


def wait_for_answers(watch: Watch) -> None:
    """Until all charts are drawn, and each question has an answer that comes of numbers."""
    watch.until("Number(document.documentElement.dataset.round) >= 30")
    watch.until("document.querySelector('#chart-value .line.first')?.getAttribute('d').length > 60")
    watch.until("document.querySelectorAll('#chart-parts .area').length === 4")
    watch.until("document.querySelector('#answer-slow .chip') !== null")
    watch.until("document.querySelectorAll('#answer-alone .verdict[data-tone=\"calm\"]').length === 0")
    watch.until("document.querySelector('#chart-td .band') !== null")
    watch.until("document.querySelector('#answer-learning .verdict').textContent !== 'Just begun'")


@pytest.mark.parametrize("size", SIZES)
def test_a_live_run_is_shown_and_moves(browser: Any, live: Live, size: str) -> None:
    watch = look(browser, live.url, size)
    page = watch.page
    wait_for_answers(watch)
    before = int(page.evaluate("document.documentElement.dataset.round"))
    watch.until(f"Number(document.documentElement.dataset.round) > {before}")
    assert page.inner_text("#phase") == "running"
    assert len(watch.column("Agent")) == AGENTS
    for chart in page.locator(".charts .chart").all():
        chart.scroll_into_view_if_needed()
        assert chart.locator("svg.plot").is_visible(), f"nothing is drawn: {chart.inner_text()}"
        box = chart.bounding_box()
        assert box["width"] > 250
        assert box["height"] > 150
    assert watch.column("TD error")[0] != "–"
    assert all(float(error.replace("e−", "e-")) > 0.0 for error in watch.column("Value error")), "on phones too"
    watch.picture(f"live-{size}")
    assert watch.serious() == []
    watch.sound()


def test_each_question_of_an_operator_has_a_visible_answer(browser: Any, live: Live) -> None:
    watch = look(browser, live.url)
    page = watch.page
    wait_for_answers(watch)
    for key in QUESTIONS:
        assert page.locator(f"#answer-{key} .verdict").is_visible()
    answers = watch.answers()
    assert "Is it still learning?" in answers["learning"]
    assert "value error" in answers["learning"], "its measure, in numbers"
    assert "Half of the agents have a value error between" in answers["learning"]
    assert f"of {AGENTS}" in answers["alone"]
    assert "1 of 12" in answers["slow"]
    assert page.locator("#answer-slow .chip").all_inner_texts() == [f"site-{SLOW}"]
    for part in ("the agents", "messages and waiting processes", "aggregation", "the disk"):
        assert part in answers["time"]
    assert page.locator("#answer-time .parts").is_visible()
    assert page.locator("#answer-next li").count() >= 1
    watch.sound()


def test_a_site_that_is_worse_than_alone_is_named(browser: Any, live: Live) -> None:
    """Early in a run of microgrids there are some; which ones follows from the clock."""
    watch = look(browser, live.url)
    page = watch.page
    wait_for_answers(watch)
    page.locator("#agents-head button", has_text="alone").first.click()
    page.locator("#agents-head button", has_text="÷ alone").click()
    # Read at once: table, answer and dots come of the same numbers, and change with them once a second.
    found = page.evaluate(
        """() => {
          const heads = [...document.querySelectorAll("#agents-head th")].map((head) => head.textContent);
          const ratio = heads.indexOf("÷ alone");
          const worse = [...document.querySelectorAll("#agents-body tr")]
            .filter((row) => row.children[ratio].dataset.tone === "bad")
            .map((row) => row.querySelector("button").textContent);
          const named = [...document.querySelectorAll("#answer-alone .chip")].map((chip) => chip.textContent);
          const dots = document.querySelector("#chart-sites .site.worse").getAttribute("d").split("M").length - 1;
          return { worse, named, dots };
        }"""
    )
    assert found["worse"], "the run has none: choose another seed"
    assert set(found["named"]) <= set(found["worse"])
    assert len(found["named"]) == min(5, len(found["worse"]))
    assert found["dots"] == len(found["worse"])
    page.locator("#answer-alone .chip").first.click()
    page.wait_for_selector("#detail-title")
    assert "worse than alone" in page.inner_text("#detail") or "Error over the best alone" in page.inner_text(
        "#detail"
    )
    watch.sound()


def test_the_table_sorts_by_click_and_by_keyboard(browser: Any, live: Live) -> None:
    watch = look(browser, live.url)
    page = watch.page
    page.wait_for_selector(f"#agents-body tr:nth-child({AGENTS})")
    assert watch.column("Agent") == [f"site-{number}" for number in range(AGENTS)]
    head = page.locator("#agents-head th").first
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert watch.column("Agent") == [f"site-{number}" for number in reversed(range(AGENTS))]
    assert page.url.endswith("#order=down")
    head.locator("button").press("Enter")
    assert watch.column("Agent")[0] == "site-0"
    page.fill("#filter", "site-1")
    assert watch.column("Agent") == ["site-1", "site-10", "site-11"]
    watch.sound()


def test_one_agent_opens_in_a_panel_with_an_address_of_its_own(browser: Any, live: Live) -> None:
    watch = look(browser, live.url)
    page = watch.page
    wait_for_answers(watch)
    page.locator("#agents-body button", has_text="site-3").click()
    assert page.url.endswith("#agent=site-3")
    assert page.evaluate("document.activeElement.id") == "detail-title"
    # Its history is there at once: it has not begun when the panel was opened.
    watch.until("document.querySelector('#chart-agent-value .line.first')?.getAttribute('d').split('L').length > 2")
    watch.until("document.querySelector('#chart-agent-td .line.first')?.getAttribute('d').split('L').length > 2")
    for line in ("first", "second", "third"):
        assert len(page.get_attribute(f"#chart-agent-value .line.{line}", "d")) > 10, "the fleet, LSTD and TD alone"
    shown = page.inner_text("#detail")
    for name in (
        "Shared weight",
        "Error over the best alone",
        "95 % interval",
        "LSTD alone, TD alone",
        "generator",
    ):
        assert name in shown
    watch.picture("agent-wide")
    assert watch.serious() == []
    page.keyboard.press("Escape")
    assert page.locator("#detail").is_hidden()
    assert page.evaluate("document.activeElement.textContent") == "site-3"
    page.goto(f"{live.url}#agent=site-5&sort=ratio&order=down")
    page.reload()
    page.wait_for_selector("#detail-title:has-text('site-5')")
    assert page.locator("#agents-head th[aria-sort=descending]").inner_text().startswith("÷ alone")
    page.go_back()
    watch.sound()


def test_the_theme_can_be_chosen_and_is_kept(browser: Any, live: Live) -> None:
    watch = look(browser, live.url)
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
    watch.sound()


def test_a_page_that_has_lost_a_file_is_loaded_again(browser: Any, live: Live) -> None:
    context, lost = browser.new_context(), []

    def lose_first(route: Any) -> None:
        if lost:
            route.continue_()
        else:
            lost.append(route.request.url)
            route.abort("connectionreset")

    context.route("**/charts.js", lose_first)
    watch = Watch(context, live.url)
    watch.page.wait_for_selector("html[data-round]")
    assert lost, "without charts.js no module runs"
    context.close()


def test_a_page_that_loses_its_files_for_good_says_so(browser: Any, live: Live) -> None:
    context, asked = browser.new_context(), []

    def lose(route: Any) -> None:
        asked.append(route.request.url)
        route.abort("connectionreset")

    context.route("**/charts.js", lose)
    watch = Watch(context, live.url)
    watch.page.wait_for_selector("#subtitle:has-text('could not be loaded')")
    assert len(asked) == 6, "once, and five times again"
    context.close()


def test_an_agent_that_is_killed_is_shown_as_gone(browser: Any, live: Live) -> None:
    watch = look(browser, live.url)
    page = watch.page
    page.wait_for_selector(f"#agents-body tr:nth-child({AGENTS})")
    os.kill(agent_process(live.process.pid, "site-7"), signal.SIGKILL)
    row = page.locator("#agents-body tr", has_text="site-7")
    row.locator(".pill", has_text="gone").wait_for()
    round_then = int(page.evaluate("document.documentElement.dataset.round"))
    watch.until(f"Number(document.documentElement.dataset.round) > {round_then}")
    page.locator("#agents-head button", has_text="Status").click()
    assert watch.column("Agent")[0] == "site-7"
    page.wait_for_selector("#answer-next:has-text('site-7: gone')")
    watch.picture("gone-wide")
    watch.sound()


def many(count: int) -> dict[str, Any]:
    """The frame of a report, of that many agents."""
    run = {
        "id": "many", "workload": "synthetic", "agents": count, "rounds": 100, "seed": 1, "feature_dim": 4,
        "rank": 1, "steps_per_round": 1, "head_update": "every-step", "aggregation": "mean", "round": 9,
        "participation": "all",
        "phase": "collecting", "phase_seconds": 2.0, "rounds_per_second": 3.0, "round_times": [0.1, 0.2],
        "waiting": {"count": 1, "names": ["site-1"]}, "finish_cause": None, "live": True, "message": "x",
        "errors": {"movement": 0.1, "subspace": None, "value": None, "lstd_alone": None, "td_alone": None},
    }  # fmt: skip
    known: dict[str, Any] = {
        "phase": "connected", "awaited": 0, "last_round": 8, "td_error": 0.5, "reconnects": 0, "rejected": 0,
        "silent": 0, "counted": 9, "absent": 0, "outliers": 0, "cause": "", "bounded": 0,
        "improved": None, "arrives": 0.1,
    }  # fmt: skip
    names = [f"site-{number}" for number in range(count)]
    learnt = [
        Learnt("here", 0.1, 0.05 + 0.1 * place / count, 0.3, 1.0, 1.0, 0.1, 0.5, 0.01).as_row(name)
        for place, name in enumerate(names)
    ]
    points = [[number, number * 0.1, *([0.1] * (len(COLUMNS) - 3)), count] for number in range(720)]
    return {
        "whole": True, "run": run,
        "agents": [[name, *(known.get(column) for column in AGENT_COLUMNS[1:])] for name in names],
        "learnt": learnt,
        "series": {"columns": COLUMNS, "stride": 1, "start": 0, "points": points},
        "basis": None, "spectrum": None, "answers": [], "histories": {},
    }  # fmt: skip


def test_a_thousand_agents_are_shown_and_sorted(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "many.html"
    path.write_text(report_page(many(1000)), encoding="utf-8")
    watch = look(browser, path.as_uri())
    assert watch.page.inner_text("#page-now") == "1 to 25 of 1\u202f000"
    watch.page.click("#page-after")
    assert watch.column("Agent")[0] == "site-25"
    took = {
        name: watch.page.evaluate(
            """(selector) => {
              const times = [];
              for (let turn = 0; turn < 20; turn += 1) {
                const buttons = document.querySelectorAll(selector);
                const start = performance.now();
                buttons[turn % buttons.length].click();
                document.body.getBoundingClientRect();
                times.push(performance.now() - start);
              }
              return times.sort((a, b) => a - b)[10];
            }""",
            selector,
        )
        for name, selector in (
            ("sort and show 1,000 agents", "#agents-head th:nth-child(3) button"),
            ("draw all charts of 720 points", "#axis button"),
        )
    }
    print(json.dumps({f"milliseconds to {name}": milliseconds for name, milliseconds in took.items()}))
    watch.picture("many-wide")
    watch.sound()
