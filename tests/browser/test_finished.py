"""The end of a run, and its report as one file, in a real Chromium. It ends the run of the other tests."""

import signal
import subprocess
from pathlib import Path
from typing import Any

from browser.conftest import COSPAN, Live
from browser.watch import AGENTS, QUESTIONS, SIZES, look


def test_a_finished_run_opens_as_one_file_offline(browser: Any, live: Live, tmp_path: Path) -> None:
    watches = [look(browser, live.url, size) for size in SIZES]
    for watch in watches:
        watch.page.wait_for_selector("#agents-body tr")
    watches[0].until("Number(document.documentElement.dataset.round) >= 30")
    live.process.send_signal(signal.SIGINT)
    assert live.process.wait(180) in (0, 75)
    for size, watch in zip(SIZES, watches, strict=True):
        watch.until("!document.querySelector('#notice').hidden")
        assert "ended" in watch.page.inner_text("#notice")
        assert watch.serious() == [], size
        watch.page.context.close()
    report = tmp_path / "report.html"
    subprocess.run([*COSPAN, "report", str(live.folder), "--output", str(report)], check=True)
    assert report.stat().st_size < 3_000_000
    for size in SIZES:
        opened = look(browser, report.as_uri(), size, offline=True)
        page = opened.page
        page.wait_for_selector(f"#agents-body tr:nth-child({AGENTS})")
        assert page.inner_text("#phase") == "stopped"
        for chart in page.locator(".charts .chart:not(#chart-parts)").all():
            assert chart.locator("svg.plot").is_visible(), chart.inner_text()
        assert all(page.locator(f"#answer-{key} .verdict").is_visible() for key in QUESTIONS)
        answers = opened.answers()
        assert "Finished" in answers["learning"]
        assert "stopped" in answers["learning"], "the reason"
        assert f"of {AGENTS}" in answers["alone"] or "of 11" in answers["alone"]
        page.locator("#agents-body button", has_text="site-3").click()
        page.wait_for_selector("#detail-title:has-text('site-3')")
        assert "Mean reward" in page.inner_text("#detail")
        assert len(page.get_attribute("#chart-agent-value .line.second", "d")) > 100
        opened.picture(f"report-{size}")
        assert opened.serious() == [], size
        opened.sound()
