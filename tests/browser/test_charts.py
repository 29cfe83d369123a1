"""The charts in a real Chromium: zoom, scales, the shared crosshair, files, a second run, pause and address."""

import csv
from pathlib import Path
from typing import Any

import pytest
from browser.conftest import Live
from browser.test_dashboard import wait_for_answers
from browser.watch import PICTURES, Watch, look, saved
from PIL import Image

from cospan.cli.commands.report import compared, report_frame
from cospan.cli.run_folder.layout import RunFolder
from cospan.dashboard.report_page import report_page

CHARTS = ("value", "subspace", "movement", "td", "time", "contributors")


@pytest.fixture
def report(short_runs: tuple[Path, Path], tmp_path: Path) -> str:
    """The address of the report of a short run."""
    path = tmp_path / "report.html"
    path.write_text(report_page(report_frame(RunFolder(short_runs[0]))), encoding="utf-8")
    return path.as_uri()


def ticks(watch: Watch, chart: str) -> list[str]:
    return watch.page.locator(f"#chart-{chart} .plot g text").all_text_contents()


def drag(watch: Watch, chart: str, start: float, end: float) -> None:
    """Drags across a chart, from and to these shares of its width."""
    plot = watch.page.locator(f"#chart-{chart} .plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    middle = box["y"] + box["height"] / 2
    watch.page.mouse.move(box["x"] + start * box["width"], middle)
    watch.page.mouse.down()
    watch.page.mouse.move(box["x"] + end * box["width"], middle, steps=4)
    watch.page.mouse.up()


def test_a_drag_zooms_all_charts_and_a_double_click_resets(browser: Any, report: str) -> None:
    watch = look(browser, report)
    page = watch.page
    whole = {chart: ticks(watch, chart) for chart in ("value", "movement")}
    drag(watch, "movement", 0.4, 0.7)
    zoomed = {chart: ticks(watch, chart) for chart in whole}
    assert all(zoomed[chart] != whole[chart] for chart in whole), "all charts have the same axis"
    assert "zoom=" in page.url
    page.reload()
    assert {chart: ticks(watch, chart) for chart in whole} == zoomed, "the address keeps it"
    page.locator("#chart-value .plot").dblclick()
    assert {chart: ticks(watch, chart) for chart in whole} == whole
    assert "zoom=" not in page.url
    page.locator("#chart-value .plot").press("+")
    assert page.locator("#unzoom").is_visible(), "by keyboard too"
    page.click("#unzoom")
    assert ticks(watch, "value") == whole["value"]
    watch.sound()


def test_the_crosshair_is_common_to_all_charts(browser: Any, report: str) -> None:
    watch = look(browser, report)
    page = watch.page
    box = page.locator("#chart-value .plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    said = {page.inner_text(f"#chart-{chart} .where") for chart in ("value", "movement", "time")}
    assert len(said) == 1
    assert said.pop().startswith("round ")
    page.mouse.move(2, 2)
    page.locator("#chart-movement .plot").focus()
    page.keyboard.press("Home")
    assert page.inner_text("#chart-contributors .where") == "round 0"
    watch.sound()


def test_scale_axis_smoothing_and_help_are_switched(browser: Any, report: str) -> None:
    watch = look(browser, report)
    page = watch.page
    line = "#chart-value .line.first:not(.faint)"
    before = page.get_attribute(line, "d")
    page.get_by_role("button", name="scale of Value error").click()
    assert page.get_attribute(line, "d") != before
    assert "scale.value=linear" in page.url
    page.locator("#axis button", has_text="Time").click()
    assert "seconds of rounds" in ticks(watch, "value")
    page.locator("#smoothing").fill("0.9")
    assert page.locator("#chart-value .line.faint").count() == 3, "what is smoothed stays visible"
    for part in ("axis=elapsed", "smooth=0.9"):
        assert part in page.url
    shown = page.get_attribute(line, "d")
    page.reload()
    assert page.get_attribute(line, "d") == shown, "the address keeps all of it"
    button = page.get_by_role("button", name="What Value error shows")
    button.click()
    assert "LSTD alone and TD alone learn from the same transitions" in page.inner_text("#chart-value .help")
    assert watch.serious() == []
    button.click()
    assert page.locator("#chart-value .help").is_hidden()
    watch.sound()


def test_each_chart_is_saved_as_csv_and_as_png(browser: Any, report: str, short_runs: tuple[Path, Path]) -> None:
    watch = look(browser, report)
    with saved(watch, "Save Value error as CSV") as (path,), path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (short_runs[0] / "rounds.csv").open(encoding="utf-8") as file:
        stored = list(csv.DictReader(file))
    assert [row["round"] for row in rows] == [row["round"] for row in stored]
    assert float(rows[-1]["value_error"]) == pytest.approx(float(stored[-1]["value_error"]), rel=1e-3)
    assert float(rows[0]["elapsed"]) > 0.0
    for title in ("Value error", "Sites against alone", "Spectrum of the heads"):
        with saved(watch, f"Save {title} as PNG") as (path,):
            picture = Image.open(path).convert("RGB")
            assert min(picture.size) > 300
            assert len(picture.getcolors(1_000_000) or ()) > 10, "it shows something"
            PICTURES.mkdir(parents=True, exist_ok=True)
            picture.save(PICTURES / f"chart-{title.lower().replace(' ', '-')}.png")
    with saved(watch, "Save Sites against alone as CSV") as (path,):
        assert path.read_text(encoding="utf-8").startswith("agent,ratio\nsite-")
    watch.sound()


def test_two_runs_are_compared(browser: Any, report: str, short_runs: tuple[Path, Path], tmp_path: Path) -> None:
    watch = look(browser, report)
    page = watch.page
    page.set_input_files("#compare", short_runs[1] / "rounds.csv")
    page.wait_for_selector("#chart-value .line.other.first")
    for chart in CHARTS:
        if chart != "td":  # rounds.csv has none
            line = "second" if chart == "subspace" else "first"
            assert len(page.locator(f"#chart-{chart} .line.other.{line}").get_attribute("d")) > 100, chart
    assert page.locator("#comparison").is_visible()
    lines = [row.locator("th, td").all_inner_texts() for row in page.locator("#comparison-body tr").all()]
    rows = {name: values for name, *values in lines}
    assert rows["Rounds"] == ["40", "40"]
    assert rows["Value error"][0] != rows["Value error"][1]
    watch.picture("compared-wide")
    assert watch.serious() == []
    page.click("#compare-end")
    assert page.locator(".line.other").count() == 0
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("a,b\n1,2\n", encoding="utf-8")
    page.set_input_files("#compare", wrong)
    page.wait_for_selector("#compare-problem:has-text('it lacks the column round')")
    watch.sound()


def test_a_report_of_two_runs_opens_with_both(browser: Any, short_runs: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "two.html"
    frame = report_frame(RunFolder(short_runs[0])) | {"other": compared(RunFolder(short_runs[1]))}
    path.write_text(report_page(frame), encoding="utf-8")
    watch = look(browser, path.as_uri(), "narrow-dark", offline=True)
    assert watch.page.locator("#comparison-head th").all_inner_texts() == ["seed-1", "seed-2"]
    assert watch.page.locator("#comparison-body tr", has_text="Seed").inner_text().split() == ["Seed", "1", "2"]
    assert watch.page.locator("#chart-value .line.other").count() > 0
    assert watch.serious() == []
    watch.sound()


def test_a_paused_page_stands_still_and_then_catches_up(browser: Any, live: Live) -> None:
    watch = look(browser, live.url)
    page = watch.page
    wait_for_answers(watch)
    page.click("#pause")
    assert page.get_attribute("#pause", "aria-pressed") == "true"
    stood = page.inner_text("#charts"), page.evaluate("document.documentElement.dataset.round")
    page.wait_for_timeout(1000)
    assert (page.inner_text("#charts"), page.evaluate("document.documentElement.dataset.round")) == stood
    page.click("#pause")
    watch.until(f"Number(document.documentElement.dataset.round) > {stood[1]}")
    assert page.locator("#notice").is_hidden()
    watch.sound()
